"""propose of a run that continues another one: where are objects in the new images?

The earlier run's proposer looks for them, as it did then; or, as the earlier run had it, masks of
the new images come from a file, or every image is one object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gcdis_ray.config import StageConfig
from gcdis_ray.stages import propose
from gcdis_ray.stages.propose import Config
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import Inputs, optional

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work

__all__ = ["Config"]

ID = "propose_kept"
VERSION = 1
TAKES = (
    "images",
    optional("image_index"),
    "instances",
    optional("source"),
    "proposer_spec",
    optional("proposer"),
)
_LEFT_OUT = ("proposer_spec", "proposer", "snapshot_*", "init", "history")
GIVES = tuple(member for member in propose.GIVES if member.name not in _LEFT_OUT)
SEEDED = False

sections, source = propose.sections, propose.source


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    """The proposer is taken over: there is no file to look at."""


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Some five objects an image."""
    rows = inputs["images"].rows * (1 if config.source == "image" else min(config.max_per_image, 5))
    read = inputs["images"].image_bytes if config.source == "model" else 0
    return Size(rows, 480 * rows, read)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Images to look through, where a model does it."""
    return Workload(rows=inputs["images"].rows if config.source == "model" else 0)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``proposals``."""
    if config.source == "image":
        propose.take_images(inputs, work)
    elif config.source == "external" and config.external is not None:
        propose.import_masks(inputs, config, config.external, work)
    else:
        weights, spec = inputs.tensor_file("proposer"), inputs.json("proposer_spec")
        propose.detect(inputs, config, work, weights, spec)
