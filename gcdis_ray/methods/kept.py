"""The crops that stand for the classes of an earlier run, and how new ones are sorted by them and
by the method that was trained there.

Shape letters: N crops, K kept ones, O outputs of the method, C classes, J neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.clustering import spaces
from gcdis_ray.clustering.newness import mean_distance, neighbours
from gcdis_ray.clustering.spaces import Space
from gcdis_ray.files.arrow_columns import as_lists, matrix
from gcdis_ray.methods.stored_method import StoredMethod, with_embeddings
from gcdis_ray.methods.tables import SORTED
from gcdis_ray.runtime.devices import Precision
from gcdis_ray.store.artifacts import Table

NONE = -1  # class of a crop that is like what people have rejected


@dataclass(frozen=True)
class KeptPoints:
    """Kept crops where new ones are compared with them.

    Args:
        space: of the frozen embeddings.
        points_KC: unit rows.
        classes_K: int64.
    """

    space: Space
    points_KC: Tensor
    classes_K: Tensor

    @classmethod
    def of(cls, kept: Table) -> KeptPoints:
        """Args: kept: the table ``kept_crops``."""
        rows = kept.read(["class_index", "embedding"])
        vectors = torch.tensor(matrix(rows["embedding"]))
        space = spaces.centred(vectors).to("cpu", torch.float32)
        classes = torch.from_numpy(rows["class_index"].to_numpy().astype(np.int64))
        return cls(space, space.place(vectors), classes)

    def place(self, embeddings: pa.ChunkedArray) -> Tensor:
        """Unit rows of crops, by their column ``embedding``."""
        return self.space.place(torch.tensor(matrix(embeddings)))


@dataclass(frozen=True)
class SortCrops:
    """Shard task: new crops and their embeddings -> ``sorted``.

    A crop is of the class that the method says. A class that came after the method has no output of
    it, and takes the crops that most of the nearest kept crops are of it.

    Args:
        kept: table ``kept_crops``.
        outputs: of each class, those that stand for it.
    """

    stored: StoredMethod
    kept: Table
    outputs: Sequence[Sequence[int]]
    top_k: int
    wants_gpu = True

    @property
    def precision(self) -> Precision:
        return self.stored.precision

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        trained, kept = self.stored.open(device), KeptPoints.of(self.kept)
        class_of_O = np.full(trained.num_outputs, NONE)
        for class_index, outputs in enumerate(self.outputs):
            class_of_O[list(outputs)] = class_index
        later = np.array([not outputs for outputs in self.outputs])

        def sort(index: int, crops: pa.Table, embeddings: pa.Table) -> Mapping[str, pa.Table]:
            if not crops.num_rows:
                return {"sorted": SORTED.empty_table()}
            beside = embeddings if self.stored.uses_embeddings else None
            said = trained.infer(with_embeddings(crops, beside))
            likely_NC = self._of_classes(said.probabilities_NC, class_of_O)
            near_NJ, which_NJ = neighbours(kept.place(embeddings["embedding"]), kept.points_KC)
            nearest_N, share_N = _most(kept.classes_K[which_NJ].numpy())
            taken_N = later[nearest_N] & (share_N > 1 / 2)
            likely_NC[taken_N] *= 1 - share_N[taken_N, None]
            likely_NC[taken_N, nearest_N[taken_N]] += share_N[taken_N]
            best_N = likely_NC.argmax(axis=1)
            nobodys_N = class_of_O[said.probabilities_NC.argmax(axis=1)] == NONE
            best_N[nobodys_N & ~taken_N] = NONE
            top_k = min(self.top_k, likely_NC.shape[1])
            order = np.argsort(-likely_NC, axis=1, kind="stable")[:, :top_k]
            ranked = np.take_along_axis(likely_NC, order, axis=1).astype(np.float32)
            columns = {
                "crop_index": crops["crop_index"],
                "class_index": pa.array(best_N.astype(np.int32)),
                "probability": pa.array(ranked[:, 0]),
                "distance": pa.array(mean_distance(near_NJ).numpy()),
                "topk_ids": as_lists(order.astype(np.int32)),
                "topk_probabilities": as_lists(ranked),
                "embedding": as_lists(said.embeddings_ND),
            }
            return {"sorted": pa.table(columns, schema=SORTED)}

        return sort

    def _of_classes(
        self, probabilities_NO: NDArray[np.float32], class_of_O: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Probability (N, C) of each class."""
        likely_NC = np.zeros((len(probabilities_NO), len(self.outputs)))
        for output in np.flatnonzero(class_of_O >= 0):
            likely_NC[:, class_of_O[output]] += probabilities_NO[:, output]
        return likely_NC


def _most(class_NJ: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Class (N,) of most neighbours, of equal ones that of the nearest, and its share."""
    votes_NJ = (class_NJ[:, :, None] == class_NJ[:, None, :]).sum(axis=2)
    best_N, rows = votes_NJ.argmax(axis=1), np.arange(len(class_NJ))  # the first of equal ones
    return class_NJ[rows, best_N], votes_NJ[rows, best_N] / class_NJ.shape[1]


def class_means(points_KC: Tensor, classes_K: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean of the points of each class, float64, and the root mean square of their distances to it;
    zeros of a class without points."""
    points = points_KC.double()
    size = torch.bincount(classes_K, minlength=num_classes).clamp(min=1).double()
    mean = torch.zeros(num_classes, points.shape[1], dtype=torch.float64)
    mean.index_add_(0, classes_K, points)
    mean /= size[:, None]
    square_K = (points - mean[classes_K]).square().sum(dim=1)
    spread = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, classes_K, square_K)
    return mean, (spread / size).sqrt()
