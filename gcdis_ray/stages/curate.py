"""curate: which classes are left when people have merged, split and rejected discovered ones?

What they decided is a log of acts by crops (:mod:`gcdis_ray.curating.acts`). Those that change
which crops are one class complete this stage's config, and so its key; names do not. Without any,
classes are those of discovery.

A crop is in the class that its cluster has become, or in the part that a split put it in. A part
that was split off has no output of the method: how far its crops can be trusted is told, as of all
others, by how stable the method's distribution of each is, and their rank among those of the part.
A labeled crop keeps its class whatever is decided: nothing that learns from labels reads it here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import PrivateAttr

from gcdis_ray.config import StageConfig
from gcdis_ray.curating.acts import Act, Merge, Move, Reject, Split, canonical, moves
from gcdis_ray.curating.outputs import class_of_cluster
from gcdis_ray.curating.replay import REJECTED, clusters_found, replay
from gcdis_ray.errors import CurationError
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import Inputs, document, optional, table
from gcdis_ray.store.schemas import PARTITION

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "curate"
VERSION = 1
TAKES = (
    "crops",  # whose numbers the acts are of
    "assignments",
    optional("partition"),  # of a run that continues an earlier one: some crops are in no class
    "discovered_classes",
    optional("holdout"),
)
GIVES = (
    table("partition", PARTITION),
    document("discovered_classes"),
    document("curation"),
)
SEEDED = False

_KINDS = (("merges", Merge), ("splits", Split), ("rejections", Reject))


class Config(StageConfig):
    """Nothing to set: what people decided is in their log, and completes it."""

    _moves: tuple[Move, ...] = PrivateAttr(())

    @property
    def moves(self) -> tuple[Move, ...]:
        return self._moves

    def key_fields(self) -> dict[str, Any]:
        return {"decisions": canonical(self._moves)}


def decided(config: Config, acts: Sequence[Act]) -> Config:
    """The config with the acts that move crops."""
    completed = config.model_copy()
    completed._moves = tuple(moves(acts))
    return completed


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """A number per crop."""
    rows = inputs["crops"].rows
    return Size(rows, 4 * rows + 5_000, 22 * rows)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Nothing that takes time."""
    return Workload()


def sections(view: RunView) -> Sequence[Section]:
    """The classes again, as people want them, and what they decided."""
    from gcdis_ray.report.class_sections import class_sections
    from gcdis_ray.report.decisions_section import decisions_section

    return [*class_sections(view), decisions_section(view)]


def run(inputs: Inputs, config: Config, work: Work) -> None:
    if config.moves and inputs.has("holdout"):
        raise CurationError(
            "classes of a discovery with withheld labels are for tuning, not to be curated",
            where="stages.discover.hold_out.share",
            fix="set it to 0",
        )
    assignments, discovered = inputs.table("assignments"), inputs.json("discovered_classes")
    crop_index_N, cluster_N, label_N = clusters_found(inputs)
    found = replay(config.moves, crop_index_N, cluster_N, discovered, label_N)
    partition, start = work.writer("partition"), 0
    for shard in assignments.shards:
        mine = slice(start, start + (shard.rows or 0))
        ids = {"crop_index": crop_index_N[mine], "cluster_id": found.cluster_N[mine]}
        partition.add(pa.table(ids))
        start = mine.stop
    partition.close()
    bare = [{k: v for k, v in row.items() if k != "clusters"} for row in found.classes]
    work.write_json("discovered_classes", bare)
    work.write_json(
        "curation",
        {
            "decisions": canonical(config.moves),
            **{name: sum(isinstance(m, kind) for m in config.moves) for name, kind in _KINDS},
            "class_of_cluster": class_of_cluster(found.classes, found.rejected),
            "discovered": [row["name"] for row in discovered],
            "rejected_crops": int(np.count_nonzero(found.cluster_N == REJECTED)),
        },
    )
