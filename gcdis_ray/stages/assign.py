"""assign: which new crops are of a class of the earlier run, and which may be of none?

The method that was trained then says which class a crop is most likely of. A crop that is farther
from the kept crops of all classes than a threshold is a candidate for a new class. The threshold is
found on the kept crops, by withholding each class in turn (:mod:`gcdis_ray.clustering.newness`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.methods.tables import SORTED
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import Inputs, document, table, whole

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work

ID = "assign"
VERSION = 1
TAKES = ("crops", "embeddings", whole("method"), "kept_crops", "kept")
GIVES = (table("sorted", SORTED), document("threshold"))
SEEDED = False


class Config(StageConfig):
    """How crops are sorted."""

    threshold: float | None = Field(
        None,
        gt=0,
        le=2,
        description="mean distance to the three nearest kept crops beyond which a crop is a "
        "candidate; none: that which tells withheld classes best",
    )
    top_k: int = Field(5, ge=1, le=1000, description="probabilities kept per crop")


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """An assignment for every crop."""
    rows = inputs["crops"].rows
    read = inputs["crops"].bytes + inputs["embeddings"].bytes + inputs["method"].bytes
    return Size(rows, 600 * rows, read)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All crops."""
    return Workload(rows=made.rows)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``sorted`` and JSON ``threshold``."""
    from gcdis_ray.clustering.newness import choose_threshold
    from gcdis_ray.methods.kept import KeptPoints, SortCrops

    kept = KeptPoints.of(inputs.table("kept_crops"))
    found = choose_threshold(kept.points_KC, kept.classes_K)
    told = {**asdict(found), "balanced_accuracy": found.balanced_accuracy, "given": False}
    if config.threshold is not None:
        told = {"value": config.threshold, "given": True}
    work.write_json("threshold", told)
    outputs = [row["outputs"] for row in inputs.json("kept")]
    stored = StoredMethod.read(inputs.beside("method"))
    task = SortCrops(stored, inputs.table("kept_crops"), outputs, config.top_k)
    tables = [inputs.table("crops"), inputs.table("embeddings")]
    work.map_shards(task, tables, gives=("sorted",))
