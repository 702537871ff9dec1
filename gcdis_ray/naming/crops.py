"""The crops that a run has sorted: what each was given, how far that is trusted, where it lies.

Arrays have one entry per crop, and row i is crop i.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.curating.replay import clusters_found
from gcdis_ray.errors import ArtifactError
from gcdis_ray.files.arrow_columns import as_lists, matrix
from gcdis_ray.files.shared_table import RandomRows, shared_table
from gcdis_ray.report.assigned import read_crops_assigned
from gcdis_ray.report.view import RunView
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.artifacts import Table

_BLOCK = 1 << 14  # vectors in memory at a time


@dataclass(frozen=True)
class SortedCrops:
    """What discovery has said of all crops.

    Args:
        classes: discover's table of classes.
        cluster_N: int64, discover's output, -1 for crops in no class.
        label_N: int64, known class of a labeled crop, -1 for an unlabeled one.
        probability_N: float64, of the class that was given; NaN for labeled crops.
        trust_N: float64, what crops of a cluster are ranked by: reliability where there are
            pseudo-labels, which is a rank within the class, else the probability.
        by_reliability: which of the two.
        vectors: where crops lie after discovery.
        pictures: table ``crops``.
    """

    classes: list[dict[str, Any]]
    cluster_N: NDArray[np.int64]
    label_N: NDArray[np.int64]
    probability_N: NDArray[np.float64]
    trust_N: NDArray[np.float64]
    by_reliability: bool
    vectors: Vectors
    pictures: Table

    @cached_property
    def ranked_N(self) -> NDArray[np.int64]:
        """All crops: unlabeled ones first, the most trusted first."""
        unlabeled_N = self.label_N < 0
        trust_N = np.where(unlabeled_N, self.trust_N, 0.0)
        return np.lexsort((self.index_N, -trust_N, ~unlabeled_N))

    @property
    def index_N(self) -> NDArray[np.int64]:
        return np.arange(len(self.cluster_N), dtype=np.int64)


def read_crops_sorted(run: OpenedRun) -> SortedCrops:
    """Raises:
    ConfigError: the run has not discovered anything yet.
    ArtifactError: damage, or crops that are not numbered in order.
    """
    made = run.artifact_with("assignments")
    assignments = made.table("assignments")
    index_N, cluster_N, label_N = (column.astype(np.int64) for column in clusters_found(made))
    if not np.array_equal(index_N, np.arange(len(index_N))):
        raise ArtifactError("crops are not numbered 0, 1, ...", where="table 'assignments'")
    rated = read_crops_assigned(_view(run))
    assert rated is not None  # assignments are there
    by_reliability = bool(np.isfinite(rated.reliability).any())
    probability_N = np.full(len(index_N), np.nan)
    probability_N[rated.crop_index.astype(np.int64)] = rated.probability
    trust_N = probability_N.copy()
    if by_reliability:  # none for rejected crops, which come last
        trust_N[rated.crop_index.astype(np.int64)] = np.nan_to_num(rated.trust(), nan=-1.0)
    return SortedCrops(
        classes=made.json("discovered_classes"),
        cluster_N=cluster_N,
        label_N=label_N,
        probability_N=probability_N,
        trust_N=trust_N,
        by_reliability=by_reliability,
        vectors=Vectors(assignments),
        pictures=run.artifact_with("crops").table("crops"),
    )


def _view(run: OpenedRun) -> RunView:
    """The two tables that trust is read from."""
    members = [member for member in ("assignments", "pseudo_labels") if run.has(member)]
    artifacts: Mapping[str, Any] = {m: run.artifact_with(m) for m in members}
    return RunView(run.name, run.config.recipe, run.config.seed, {}, "", (), artifacts)


class Vectors:
    """Embeddings of crops after discovery, float32 of length 1: in a scratch file, of which only
    what is asked for is in memory.

    Args:
        assignments: the table that has them.
    """

    def __init__(self, assignments: Table) -> None:
        def pieces() -> Iterator[pa.Table]:
            for shard in assignments.iter_shards(["embedding"], ahead=4):
                if shard.num_rows:
                    yield pa.table({"embedding": as_lists(matrix(shard["embedding"]))}, schema=kept)

        kept = pa.schema([pa.field("embedding", pa.list_(pa.float32()))])
        name = f"embeddings {assignments.digest}"
        self._rows = RandomRows(shared_table(name, kept, pieces))
        self._parts = [matrix(column) for column in self._rows.column("embedding")]

    def of(self, crops_M: NDArray[np.int64]) -> Tensor:
        """Vectors (M, D) of these crops, in this order; M is at least 1."""
        places = self._rows.places(crops_M)
        return torch.from_numpy(np.stack([self._parts[part][row] for part, row in places]))

    def blocks(self, crops_M: NDArray[np.int64]) -> Iterator[Tensor]:
        """The same a block at a time."""
        for start in range(0, len(crops_M), _BLOCK):
            yield self.of(crops_M[start : start + _BLOCK])
