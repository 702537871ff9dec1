"""Clusters of a method whose outputs were dropped or joined after training.

Shape letters: N crops, K outputs, C clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.methods.method import InferEach, Inferred, Trained

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grouped:
    """A trained method that speaks of clusters. Implements :class:`Trained`.

    Args:
        groups: outputs of each cluster; an output in none is dropped.
    """

    trained: Trained
    groups: Sequence[Sequence[int]]

    @property
    def num_outputs(self) -> int:
        return len(self.groups)

    @property
    def width(self) -> int:
        return self.trained.width

    def infer(self, crops: pa.Table) -> Inferred:
        found = self.trained.infer(crops)
        return Inferred(
            group_probabilities(found.probabilities_NC, self.groups), found.embeddings_ND
        )

    def each(self, snapshots: Sequence[Mapping[str, Tensor]]) -> InferEach:
        infer = self.trained.each(snapshots)
        return lambda crops: np.stack(
            [group_probabilities(found_NK, self.groups) for found_NK in infer(crops)]
        )

    def prototypes_KF(self) -> NDArray[np.float32]:
        raise NotImplementedError("clusters of several outputs have no prototype of their own")


def group_probabilities(
    probabilities_NK: NDArray[np.float32], groups: Sequence[Sequence[int]]
) -> NDArray[np.float32]:
    """Probabilities of the outputs that are in a group, out of these alone, summed within each:
    (N, C)."""
    kept = [output for group in groups for output in group]
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    shares_NK = probabilities_NK[:, kept].astype(np.float64)
    shares_NK /= np.maximum(shares_NK.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.add.reduceat(shares_NK, starts, axis=1).astype(np.float32)
