"""What clustering alone gives on the crops that a run has discovered classes in.

Shape letters: N crops, D dimensions of their embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gcdis_ray.clustering.kmeans import kmeans, nearest
from gcdis_ray.clustering.prototypes import semi_supervised_kmeans
from gcdis_ray.data.crops.crop_store import decode_crops
from gcdis_ray.data.crops.crop_vectors import read_vectors
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.methods.kmeans.model import draw
from gcdis_ray.metrics.cluster_classes import count_matrix, match_clusters
from gcdis_ray.store.artifacts import Table

Ints = NDArray[np.int64]
MAX_CROPS = 100_000  # centers are found on at most so many
PIXEL_SIDE_PX = 16
_ITERATIONS, _TOLERANCE = 100, 1e-4  # of each start, as plain k-means has them


@dataclass(frozen=True)
class Partition:
    """Crops in clusters, and what these stand for.

    Args:
        cluster_N: cluster of every crop, by crop_index; -1: in none.
        known: cluster -> known class (``class_index``) that it stands for; None: no cluster stands
            for any before the truth is opened.
    """

    cluster_N: NDArray[np.integer]
    known: Mapping[int, int] | None = None


@dataclass(frozen=True)
class Baseline:
    """k-means over all crops, with labels or without.

    Args:
        num_clusters: as many as were discovered.
        n_init: starts.
        seed: each baseline draws from a generator of its own.
    """

    num_clusters: int
    n_init: int
    seed: int

    def of_embeddings(self, embeddings: Table) -> Partition:
        """Plain k-means. Centers come from a sample where there are more crops than
        :data:`MAX_CROPS`; vectors are read a shard at a time."""
        total, generator = embeddings.num_rows, self._generator()
        if total <= MAX_CROPS:
            return Partition(self._clusters(list(_vectors(embeddings)), generator))
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.randperm(total, generator=generator)[:MAX_CROPS]] = True
        first, sample = 0, []
        for _, points_ND in _vectors(embeddings):
            sample.append(points_ND[chosen[first : first + len(points_ND)]])
            first += len(points_ND)
        return Partition(_nearest(embeddings, self._centers(torch.cat(sample), generator)))

    def of_labels(self, embeddings: Table, num_known: int) -> Partition:
        """Semi-supervised k-means (Vaze et al. 2022, Generalized Category Discovery): labeled crops
        stay in the cluster of their class. Clusters below ``num_known`` are the known classes."""
        labels = embeddings.read(["class_index"])["class_index"].to_numpy()
        labels_N, generator = torch.from_numpy(labels.astype(np.int64)), self._generator()
        rows_M = draw(labels_N, MAX_CROPS, generator)
        centers_KD = semi_supervised_kmeans(
            read_vectors(embeddings, rows_M),
            labels_N[rows_M],
            num_known,
            max(self.num_clusters, num_known),
            generator,
            iterations=_ITERATIONS,
            restarts=self.n_init,
            tolerance=_TOLERANCE,
        )
        there_J = torch.nonzero(centers_KD.any(dim=1)).flatten()  # classes with a labeled crop
        cluster_N = there_J.numpy()[_nearest(embeddings, centers_KD[there_J])]
        return Partition(cluster_N, {k: k for k in range(num_known)})

    def of_pixels(self, crops: Table) -> Partition | None:
        """Plain k-means by the pixels of crops, shrunk; None for sets too large to hold."""
        if crops.num_rows > MAX_CROPS:
            return None
        parts = []
        for shard in crops.iter_shards(["crop_index", "jpeg", "mask_png"]):
            images, _ = decode_crops(
                shard["jpeg"].to_pylist(), shard["mask_png"].to_pylist(), PIXEL_SIDE_PX
            )
            parts.append((shard["crop_index"].to_numpy(), images.flatten(1).float() / 255))
        return Partition(self._clusters(parts, self._generator()))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _clusters(self, parts: list[tuple[Ints, torch.Tensor]], generator: torch.Generator) -> Ints:
        points_ND = torch.cat([points for _, points in parts])
        cluster_N = np.empty(len(points_ND), dtype=np.int64)
        found = nearest(points_ND, self._centers(points_ND, generator))[0].numpy()
        cluster_N[np.concatenate([crop_index for crop_index, _ in parts])] = found
        return cluster_N

    def _centers(self, points_ND: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        wanted = min(self.num_clusters, len(points_ND))
        return kmeans(points_ND, wanted, generator, n_init=self.n_init).centers_KD


def named_by_labels(found: Partition, label_N: NDArray[np.integer]) -> Partition:
    """The same clusters, some of them named as a user would have to: by the labeled crops in them.

    One assignment of known classes to clusters, one to one, that most labeled crops agree with; a
    cluster without a crop of the class left to it stays without a name.

    Args:
        label_N: known class of each labeled crop, by crop_index, -1 of an unlabeled one.
    """
    told_N = label_N >= 0
    counts = count_matrix(
        found.cluster_N[told_N],
        label_N[told_N],
        1 + int(found.cluster_N.max(initial=-1)),
        1 + int(label_N.max(initial=-1)),
    )
    return Partition(found.cluster_N, match_clusters(counts, {}, "all"))


def _nearest(embeddings: Table, centers_KD: torch.Tensor) -> Ints:
    """Nearest center of every crop, by crop_index, a shard at a time."""
    cluster_N = np.empty(embeddings.num_rows, dtype=np.int64)
    for crop_index, points_ND in _vectors(embeddings):
        cluster_N[crop_index] = nearest(points_ND, centers_KD)[0].numpy()
    return cluster_N


def _vectors(embeddings: Table) -> Iterator[tuple[Ints, torch.Tensor]]:
    """crop_index (rows,) and vectors (rows, D) of every shard that holds any."""
    for shard in embeddings.iter_shards(["crop_index", "embedding"]):
        if shard.num_rows:
            yield shard["crop_index"].to_numpy(), torch.tensor(matrix(shard["embedding"]))
