"""Whether a cluster looks like two: two-means of its embeddings, beside what one cloud would give.

Two-means cuts any cloud, and a long one into halves that look well apart. So their silhouette says
little by itself. What tells two groups from one cloud is how narrow the halves are along the line
between their means: Ashman's D (Ashman, Bird, Zepf 1994), the distance of the means in standard
deviations of the halves. It is compared with that of points drawn from one normal distribution with
the same spread along the same axes (as in Liu, Hayes, Nobel, Marron 2008, SigClust).

Shape letters: N points, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.class_count.measures import silhouette
from gcdis_ray.clustering.kmeans import Clustering, kmeans

LEAST = 8  # points, below which there is nothing to tell
SAMPLE = 2_000  # points that are looked at of a larger cluster
_CLOUDS = 4  # clouds that it is compared with
_CLEAR = 1.6  # times as far apart as the halves of any cloud
_LEAST_HALF = 4  # points: fewer are strays, which a person sees among the doubtful
_STARTS = 3  # of k-means


@dataclass(frozen=True)
class Halves:
    """Two-means of a cluster.

    Args:
        centers_2D: the mean of each half.
        silhouette: simplified, in [-1, 1]: distances to centers in the place of those to points.
        apart: distance of the means of the halves along the line between them, in standard
            deviations (the root of the mean of the variances of the halves along that line).
        chance: the largest such distance of four single clouds of the same spread.
        smaller: how many points the smaller half has.
    """

    centers_2D: Tensor
    silhouette: float
    apart: float
    chance: float
    smaller: int

    @property
    def clear(self) -> bool:
        """Whether the cluster is far better seen as two: its halves are 1.6 times as far apart as
        those of any of four clouds, and the smaller one has at least four points."""
        return self.smaller >= _LEAST_HALF and self.apart >= _CLEAR * self.chance


@torch.no_grad()
def halves(points_ND: Tensor, seed: int) -> Halves | None:
    """Args:
        points_ND: a cluster's embeddings, or a sample of them.
        seed: of starts and clouds; equal arguments give equal halves.

    Returns:
        None for fewer than eight points, and for points that are all the same.
    """
    if len(points_ND) < LEAST:
        return None
    generator = torch.Generator().manual_seed(seed)
    points_ND = points_ND.double()
    centred_ND = points_ND - points_ND.mean(dim=0)
    spread_R = torch.linalg.svdvals(centred_ND) / (len(points_ND) - 1) ** 0.5
    if not bool(spread_R[0] > 1e-9):
        return None
    found = _two(points_ND, generator)
    clouds = [
        torch.randn(len(points_ND), len(spread_R), generator=generator, dtype=torch.float64)
        * spread_R
        for _ in range(_CLOUDS)
    ]
    chance = max(_apart(cloud, _two(cloud, generator)) for cloud in clouds)
    smaller = int(torch.bincount(found.cluster_N, minlength=2).min())
    shown = silhouette(points_ND, found.centers_KD, found.cluster_N)
    return Halves(found.centers_KD, shown, _apart(points_ND, found), chance, smaller)


def _two(points_ND: Tensor, generator: torch.Generator) -> Clustering:
    return kmeans(points_ND, 2, generator, n_init=_STARTS)


def _apart(points_ND: Tensor, found: Clustering) -> float:
    """Ashman's D of the halves."""
    line_D = F.normalize(found.centers_KD[1] - found.centers_KD[0], dim=0)
    along = [(points_ND[found.cluster_N == half] @ line_D) for half in (0, 1)]
    deviation = (sum(values.var(correction=0) for values in along) / 2) ** 0.5
    return float((along[1].mean() - along[0].mean()) / torch.as_tensor(deviation).clamp(min=1e-12))
