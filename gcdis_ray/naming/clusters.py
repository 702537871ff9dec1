"""Clusters as people see them: who is in one, what lies near it, and whether it looks like two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.kmeans import nearest
from gcdis_ray.curating.replay import Curated
from gcdis_ray.naming.crops import SortedCrops
from gcdis_ray.naming.halves import SAMPLE, halves

_REMEMBERED = 20_000  # clusters whose means and halves are kept
_Found = TypeVar("_Found")


@dataclass(frozen=True, eq=False)
class Cluster:
    """A class as it is after some acts.

    Args:
        number: its ``class_index`` then; others may have it after more acts.
        crops_M: its unlabeled crops, int64, most trusted first.
        labeled_L: labeled crops that lie in it, int64, rising.
        probability: mean over the unlabeled ones that have one, in [0, 1]; None without any.
    """

    number: int
    name: str
    named: bool
    known: bool
    crops_M: NDArray[np.int64]
    labeled_L: NDArray[np.int64]
    probability: float | None

    @property
    def crop(self) -> int:
        """By which acts call it: of its unlabeled crops, if it has any, the most trusted one."""
        return int((self.crops_M if len(self.crops_M) else self.labeled_L)[0])

    @cached_property
    def digest(self) -> bytes:
        """Equal for clusters of the same crops."""
        crops = np.sort(np.concatenate([self.crops_M, self.labeled_L]))
        return hashlib.sha256(crops.tobytes()).digest()


@dataclass(frozen=True)
class Suggestion:
    """That a cluster may be two.

    Args:
        crops_M: those that would leave, the smaller half, in the cluster's order.
        silhouette, apart, chance: as in :class:`~gcdis_ray.naming.halves.Halves`.
    """

    crops_M: NDArray[np.int64]
    silhouette: float
    apart: float
    chance: float

    def halves_of(self, cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Unlabeled crops that would stay, and those that would leave, most trusted first."""
        return cluster.crops_M[~np.isin(cluster.crops_M, self.crops_M)], self.crops_M


def clusters_of(curated: Curated, crops: SortedCrops) -> list[Cluster]:
    """All classes that hold a crop, by number."""
    unlabeled_N = crops.label_N < 0
    cluster_N = curated.cluster_N[crops.ranked_N]
    order_N = crops.ranked_N[np.argsort(cluster_N, kind="stable")]
    sorted_N = np.sort(cluster_N)
    found = []
    for row in curated.classes:
        number = int(row["class_index"])
        first, end = np.searchsorted(sorted_N, [number, number + 1])
        here = order_N[first:end]
        num = int(unlabeled_N[here].sum())
        if len(here):
            found.append(
                Cluster(
                    number=number,
                    name=str(row["name"]),
                    named=number in curated.names,
                    known=bool(row["known"]),
                    crops_M=here[:num],
                    labeled_L=here[num:],
                    probability=_mean(crops.probability_N[here[:num]]),
                )
            )
    return found


def _mean(probability_M: NDArray[np.float64]) -> float | None:
    """Of those that are known: crops that this run took for rejected have none."""
    known = probability_M[np.isfinite(probability_M)]
    return float(known.mean()) if len(known) else None


class Surroundings:
    """Means and halves of clusters. What was found of a cluster is remembered as long as the same
    crops are in it."""

    def __init__(self, crops: SortedCrops) -> None:
        self._crops = crops
        self._means: dict[bytes, Tensor] = {}
        self._halves: dict[bytes, Suggestion | None] = {}

    def near(
        self, some: Sequence[Cluster], every: Sequence[Cluster], most: int
    ) -> list[list[tuple[Cluster, float]]]:
        """For each of ``some`` the ``most`` nearest of ``every``, nearest first, with the cosine of
        the means of their embeddings."""
        if not some:
            return []
        directions_KD = torch.stack([self._mean(cluster) for cluster in every])
        place = {cluster.number: row for row, cluster in enumerate(every)}
        rows = torch.tensor([place[cluster.number] for cluster in some])
        cosine_SK = directions_KD[rows] @ directions_KD.T
        cosine_SK[torch.arange(len(rows)), rows] = -torch.inf
        best = cosine_SK.topk(min(most, len(every) - 1), dim=1)
        return [
            [(every[k], value) for k, value in zip(ks, values, strict=True)]
            for ks, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def split(self, cluster: Cluster) -> Suggestion | None:
        """How a discovered cluster would be split, if it clearly looks like two."""
        if cluster.known:
            return None
        return _remembered(self._halves, cluster.digest, lambda: self._split(cluster))

    def _mean(self, cluster: Cluster) -> Tensor:
        """Direction (D,) of the mean of a cluster's embeddings."""
        crops_M = np.concatenate([cluster.crops_M, cluster.labeled_L])

        def make() -> Tensor:
            sums = [block.double().sum(dim=0) for block in self._crops.vectors.blocks(crops_M)]
            return F.normalize(torch.stack(sums).sum(dim=0), dim=0).float()

        return _remembered(self._means, cluster.digest, make)

    def _split(self, cluster: Cluster) -> Suggestion | None:
        crops_M, vectors = cluster.crops_M, self._crops.vectors
        sample_S = crops_M
        if len(crops_M) > SAMPLE:
            seed = int.from_bytes(cluster.digest[:8], "big")
            sample_S = np.random.default_rng(seed).choice(crops_M, SAMPLE, replace=False)
        found = halves(vectors.of(np.sort(sample_S)), seed=0) if len(crops_M) else None
        if found is None or not found.clear:
            return None
        centers_2D = found.centers_2D.float()
        half_M = torch.cat([nearest(block, centers_2D)[0] for block in vectors.blocks(crops_M)])
        smaller = int(torch.bincount(half_M, minlength=2).argmin())
        leaving_M = crops_M[(half_M == smaller).numpy()]
        return Suggestion(leaving_M, found.silhouette, found.apart, found.chance)


def _remembered(kept: dict[bytes, _Found], digest: bytes, make: Callable[[], _Found]) -> _Found:
    if digest not in kept:
        if len(kept) >= _REMEMBERED:
            kept.clear()
        kept[digest] = make()
    return kept[digest]
