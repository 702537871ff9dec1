"""Ingest of a run that continues another one: which images are new?

As :mod:`gcdis_ray.stages.ingest`, but that nothing is labeled: known classes are the earlier run's.
Annotations of the new images, if there are any, are neither read into a table nor part of the
fingerprint: see ``new_truth``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gcdis_ray.data.sets.data_config import NewImages
from gcdis_ray.data.sets.fingerprints import Show, images_digest, states_digest
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.stages import ingest
from gcdis_ray.store.members import Inputs

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work

ID = "ingest_new"
VERSION = 1
TAKES: tuple[str, ...] = ()
GIVES = tuple(member for member in ingest.GIVES if member.name != "classes")
SEEDED = False

forecast, workload = ingest.forecast, ingest.workload


class Config(NewImages, ingest.Config):
    """Where the new images are."""


def source(config: Config, show: Show = lambda progress: None) -> str:
    """Fingerprint of the list of images and of their files. Raises as that of stage ingest."""
    if config.fingerprint == "stat":
        found = states_digest(config, config.splits)
    else:
        found = images_digest(plan_data(config), "unlabeled", show)
    if config.store == "uri":
        found += f" {config.open_root().uri} at {config.endpoint}"
    return hashlib.sha256(found.encode()).hexdigest()


def sections(view: RunView) -> Sequence[Section]:
    """What came in, and what of it was set aside."""
    from gcdis_ray.report.set_aside import set_aside_section

    return [set_aside_section(view)]


def run(inputs: Inputs, config: Config, work: Work) -> None:
    plan = plan_data(config)
    if config.fingerprint == "stat":  # otherwise the fingerprint has looked
        plan.check_present()
    ingest.read_images(plan, config, work)


def check(config: Config, givers: Mapping[str, object]) -> None:
    """That there are images, before anything starts."""
    plan_data(config)
