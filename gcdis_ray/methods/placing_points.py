"""The points that are placed: crops, or small clusters of them where there are too many.

Memory is that of the points, however many crops there are: vectors are read a shard at a time.

Shape letters: N crops, G points, D dimensions of the embeddings, C of a space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gcdis_ray.clustering import spaces
from gcdis_ray.clustering.kmeans import kmeans, nearest
from gcdis_ray.clustering.spaces import Space
from gcdis_ray.data.crops.crop_vectors import read_vectors
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.store.artifacts import Table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LEAST_DIMS = 32
_LEAST_LABELED = 3  # points of a class, if it has as many labels
FITTED = 20_000  # crops that a space is fitted to
_CENTRED_ON = 8  # crops a small cluster that its centers are found on
_ITERATIONS = 10


@dataclass(frozen=True)
class PlacingPoints:
    """Labeled crops, each a point, then unlabeled ones, or small clusters of these.

    Args:
        means: by space, (G, C) mean of the unit vectors that each point stands for.
        labels_G: class that training is told of each labeled point, -1 of the others.
        weight_G: crops that each stands for.
    """

    means: Mapping[str, Tensor]
    labels_G: Ints
    weight_G: Floats

    def tensors(self) -> dict[str, Tensor]:
        return {
            **self.means,
            "labels_G": torch.from_numpy(self.labels_G),
            "weight_G": torch.from_numpy(self.weight_G),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], spaces: Sequence[str]) -> PlacingPoints:
        """As :meth:`tensors` says, of some spaces."""
        means = {name: tensors[name] for name in spaces}
        return cls(means, tensors["labels_G"].numpy(), tensors["weight_G"].numpy())


def spaces_of(vectors_MD: Tensor, num_classes: int, dims: int) -> dict[str, Space]:
    """The spaces that are tried, by name: all dimensions as they are and centred; some principal
    components, half-whitened and whitened: as many as classes, and ``dims``."""
    found = {"raw": spaces.raw(vectors_MD), "centred": spaces.centred(vectors_MD)}
    sizes = {dims, min(max(_LEAST_DIMS, num_classes), dims)}
    if min(vectors_MD.shape[1], len(vectors_MD) - 1) <= min(sizes):  # no more dimensions than that
        sizes = {dims}
    for kept in sorted(sizes):
        found[f"half-whitened {kept}"] = spaces.half_whitened(vectors_MD, kept)
        found[f"whitened {kept}"] = spaces.whitened(vectors_MD, kept)
    return found


def smallest(dims: int) -> str:
    """The space in which crops are joined where there are too many."""
    return f"half-whitened {dims}"


def draw_rows(rows_N: Ints, most: int, seed: int) -> Tensor:
    """At most so many of these rows, at random, rising."""
    rng = np.random.default_rng([seed, 2])
    return torch.from_numpy(np.sort(rng.permutation(rows_N)[:most]))


def group_crops(
    embeddings: Table, labels_N: Ints, small: Space, most: int, seed: int
) -> tuple[Ints, Ints]:
    """Which crop belongs to which point.

    Args:
        labels_N: class that training is told of each labeled crop, -1 of an unlabeled one.
        small: in which unlabeled crops are joined, if there are more than ``most``.
        most: unlabeled points, and about as many labeled ones.

    Returns:
        point (N,) of each crop, -1 for labeled crops beyond ``most``; labels (G,) of points.
    """
    rng = np.random.default_rng([seed, 3])
    told = np.unique(labels_N[labels_N >= 0])
    many = np.count_nonzero(labels_N >= 0) > most
    each = max(_LEAST_LABELED, most // max(len(told), 1)) if many else len(labels_N)
    drawn = [rng.permutation(np.flatnonzero(labels_N == label))[:each] for label in told]
    labeled = np.sort(np.concatenate([*drawn, np.zeros(0, np.int64)]))
    point_N = np.full(len(labels_N), -1, dtype=np.int64)
    point_N[labeled] = np.arange(len(labeled))
    free = np.flatnonzero(labels_N < 0)
    if len(free) <= most:
        point_N[free] = len(labeled) + np.arange(len(free))
        num_free = len(free)
    else:
        sample = draw_rows(free, _CENTRED_ON * most, seed)
        centers_KC = _centers(small.place(read_vectors(embeddings, sample)), most, seed)
        joined, num_free = _nearest(embeddings, free, small, centers_KC)
        point_N[free] = len(labeled) + joined
    labels_G = np.concatenate([labels_N[labeled], np.full(num_free, -1)])
    return point_N, labels_G


def _centers(points_MC: Tensor, most: int, seed: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    start = torch.randperm(len(points_MC), generator=generator)[:most]
    return kmeans(
        points_MC, most, generator, start_KD=points_MC[start], max_iterations=_ITERATIONS
    ).centers_KD


def _nearest(embeddings: Table, rows: Ints, small: Space, centers_KC: Tensor) -> tuple[Ints, int]:
    """The center next to each of these rows, those that none is next to left out, and how many
    are left."""
    parts, first = [], 0
    for shard in embeddings.iter_shards(["embedding"]):
        here = rows[(rows >= first) & (rows < first + len(shard))] - first
        first += len(shard)
        if len(here):
            vectors = torch.from_numpy(matrix(shard["embedding"])[here])
            parts.append(nearest(small.place(vectors), centers_KC)[0].numpy())
    used, joined = np.unique(np.concatenate(parts), return_inverse=True)
    return joined, len(used)


def read_points(
    embeddings: Table, point_N: Ints, labels_G: Ints, found: Mapping[str, Space]
) -> PlacingPoints:
    """Means of the points in every space, in one reading of the vectors."""
    size_G = np.bincount(point_N[point_N >= 0], minlength=len(labels_G)).astype(np.float64)
    sums = {
        name: torch.zeros(len(labels_G), space.width, dtype=torch.float64)
        for name, space in found.items()
    }
    first = 0
    for shard in embeddings.iter_shards(["embedding"]):
        mine = point_N[first : first + len(shard)]
        first += len(shard)
        rows = np.flatnonzero(mine >= 0)
        if len(rows):
            vectors, points = torch.from_numpy(matrix(shard["embedding"])[rows]), mine[rows]
            for name, space in found.items():
                sums[name].index_add_(0, torch.from_numpy(points), space.place(vectors).double())
    weight = torch.from_numpy(size_G)[:, None]
    means = {name: (total / weight).float() for name, total in sums.items()}
    return PlacingPoints(means, labels_G, size_G)
