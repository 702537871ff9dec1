"""Classes as Gaussians of one shape: known classes teach the shape, then classes are counted.

The model is probabilistic linear discriminant analysis (Ioffe 2006), its partition drawn by the
Chinese restaurant process:

    center of a class ~ N(0, B),    point ~ N(center, t W),    partition ~ CRP(1)

W, the covariance within classes, comes from labeled points; B is what the covariance of all points
has beyond W. Centers integrate out, so that a cluster's evidence needs its size n and sum only.
Starting at many small clusters, the pair is merged whose union gains the most evidence, and points
move to the cluster that explains them best, until nothing gains. A large class is not divided for
its size and a rare one not swallowed, which k-means with one K for all does on long tails.

Real classes are not Gaussian, so evidence alone divides them. The noise level t makes up for that.
It is judged by classes that had no part in W: a fifth of the known classes is hidden in turn (the
pseudo-novel hold-out), and t is good where these are found again whole. The others have little say.

Shape letters: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import gammaln

from gcdis_ray.clustering.class_count.measures import rows_at_a_time
from gcdis_ray.clustering.class_count.points import Points
from gcdis_ray.clustering.class_count.trials import (
    Job,
    Labels,
    Trial,
    diagnostics,
    hidden_classes,
    judges,
    recalls,
)
from gcdis_ray.clustering.kmeans import kmeans

Array = NDArray[np.float64]

SEEN = (
    0.05  # what a class that taught W counts beside a hidden one: it looks more compact than it is
)
ROUNDS = 3  # of merging and moving, per noise level
MOVES = 3  # passes over the points per round
MAX_CLUSTERS = 6_000  # at the start: the gains of all pairs take 288 MB, per job


@dataclass(frozen=True)
class Mixture:
    """The family over noise levels.

    Args:
        num_known: known classes.
        num_draws: draws of points; each hides other classes.
        seed: of hidden classes and of the first, small clusters.
        max_clusters: small clusters at the start; at most a third of the points, and MAX_CLUSTERS.
        min_size: a smaller cluster is not counted.
        noise: levels of t, ascending.
    """

    num_known: int
    num_draws: int
    seed: int
    max_clusters: int
    min_size: int = 3
    noise: tuple[float, ...] = tuple(np.geomspace(0.5, 32, 31).tolist())

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return [] if trials else [Job(draw, self.noise) for draw in range(self.num_draws)]

    def run(self, job: Job, points: Points, device: str = "cpu") -> list[Trial]:
        label_N = points.labels_N.numpy()
        classes = np.unique(label_N[label_N >= 0]).tolist()
        hidden = hidden_classes(classes, job.draw, self.seed)
        seen_N = np.where(np.isin(label_N, hidden), -1, label_N)
        space = discriminant_space(points.points_ND.double().numpy(), seen_N)
        cluster_N = self._small_clusters(space.points_ND, job.draw, device)
        trials = []
        for noise in job.parameters:
            cluster_N = merge(space, cluster_N, noise)
            sizes = np.bincount(cluster_N)
            trials.append(
                Trial(
                    job.draw,
                    noise,
                    max(1, int((sizes >= self.min_size).sum())),
                    recalls(cluster_N, label_N, self.num_known),
                    judges(label_N, self.num_known, hidden, SEEN),
                    *diagnostics(points.points_ND, torch.from_numpy(cluster_N)),
                )
            )
        return trials

    def _small_clusters(self, points_ND: Array, draw: int, device: str = "cpu") -> Labels:
        num = max(1, min(self.max_clusters, len(points_ND) // 3, MAX_CLUSTERS))
        found = kmeans(
            torch.from_numpy(points_ND).float().to(device),
            num,
            torch.Generator().manual_seed(self.seed * 1000 + draw),
            max_iterations=10,
        )
        return compact(found.cluster_N.cpu().numpy())


class Space(NamedTuple):
    """Points (N, D) where the covariance within classes is the identity and that of class centers
    is diagonal, ``between_D`` > 0."""

    points_ND: Array
    between_D: Array


def discriminant_space(points_ND: Array, label_N: Labels) -> Space:
    """Whiten by the labeled classes; keep the directions in which all points vary by more.

    The covariance within classes is shrunk (Ledoit and Wolf 2004): there may be fewer labeled
    points than dimensions. Directions are kept above the edge that the largest eigenvalue of pure
    noise would have (Marchenko and Pastur 1967), at least one.
    """
    from sklearn.covariance import ledoit_wolf

    parts = []
    for label in np.unique(label_N[label_N >= 0]):
        mine = points_ND[label_N == label]
        if len(mine) > 1:
            parts.append((mine - mine.mean(axis=0)) * math.sqrt(len(mine) / (len(mine) - 1)))
    centered = points_ND - points_ND.mean(axis=0)
    residuals = np.concatenate(parts) if parts else centered
    within = ledoit_wolf(residuals, assume_centered=True)[0]
    within += 1e-9 * max(float(np.trace(within)), 1e-12) * np.eye(len(within))
    total = centered.T @ centered / len(centered)
    ratio_D, vectors = eigh(total, within)
    ratio_D, vectors = ratio_D[::-1], vectors[:, ::-1]
    edge = (1 + math.sqrt(points_ND.shape[1] / len(points_ND))) ** 2
    num = max(1, int((ratio_D > edge).sum()))
    return Space(centered @ vectors[:, :num], np.maximum(ratio_D[:num] - 1, 1e-2))


def merge(space: Space, cluster_N: Labels, noise: float) -> Labels:
    """Merge clusters while the evidence gains, move points to their best cluster, and again."""
    for _ in range(ROUNDS):
        before = cluster_N
        cluster_N = _agglomerate(space, cluster_N, noise)
        for _ in range(MOVES):
            moved = compact(best_clusters(space, cluster_N, noise))
            if np.array_equal(moved, cluster_N):
                break
            cluster_N = moved
        if cluster_N.max() == before.max():
            break
    return cluster_N


def compact(cluster_N: Labels) -> Labels:
    """Clusters numbered 0..K-1 without gaps, in their order."""
    return np.unique(cluster_N, return_inverse=True)[1].astype(np.int64)


def sums(points_ND: Array, cluster_N: Labels) -> tuple[Array, Array]:
    """Size (K,) and sum (K, D) of every cluster."""
    num = int(cluster_N.max()) + 1
    size_K = np.bincount(cluster_N, minlength=num).astype(np.float64)
    sum_KD = np.zeros((num, points_ND.shape[1]))
    np.add.at(sum_KD, cluster_N, points_ND)
    return size_K, sum_KD


def evidence(size_K: Array, sum_KD: Array, between_D: Array, noise: float) -> Array:
    """Log evidence of clusters beyond what all partitions of the points have in common.

    log N-integral over the center, and log Γ(n) of the Chinese restaurant prior.
    """
    prior_KD = size_K[:, None] * (between_D / noise)
    fit = (between_D / noise**2 * sum_KD**2 / (1 + prior_KD)).sum(axis=1)
    return 0.5 * (fit - np.log1p(prior_KD).sum(axis=1)) + gammaln(size_K)


def best_clusters(space: Space, cluster_N: Labels, noise: float) -> Labels:
    """For every point the cluster with the largest predictive density times size."""
    size_K, sum_KD = sums(space.points_ND, cluster_N)
    precision_KD = 1 / space.between_D + size_K[:, None] / noise
    center_KD = sum_KD / noise / precision_KD
    weight_KD = 1 / (1 / precision_KD + noise)
    constant_K = (center_KD**2 * weight_KD - np.log(weight_KD)).sum(axis=1) - 2 * np.log(size_K)
    best = np.empty(len(cluster_N), dtype=np.int64)
    step = rows_at_a_time(len(size_K))
    for start in range(0, len(best), step):
        part = space.points_ND[start : start + step]
        cost = (part**2) @ weight_KD.T - 2 * part @ (center_KD * weight_KD).T + constant_K
        best[start : start + step] = cost.argmin(axis=1)
    return best


def _agglomerate(space: Space, cluster_N: Labels, noise: float) -> Labels:
    """Merge the pair that gains most, again and again, while any gains."""
    size_K, sum_KD = sums(space.points_ND, cluster_N)
    num = len(size_K)
    own_K = evidence(size_K, sum_KD, space.between_D, noise)
    alive = np.ones(num, dtype=bool)

    def gains(k: int) -> Array:
        """Of merging k with every cluster; minus infinity with itself and with merged ones."""
        others = np.flatnonzero(alive)
        union = evidence(
            size_K[k] + size_K[others], sum_KD[k] + sum_KD[others], space.between_D, noise
        )
        gain = np.full(num, -np.inf)
        gain[others] = union - own_K[k] - own_K[others]
        gain[k] = -np.inf
        return gain

    gain_KK = np.empty((num, num))
    for k in range(num):
        gain_KK[k] = gains(k)
    best_K, partner_K = gain_KK.max(axis=1), gain_KK.argmax(axis=1)
    owner_K = np.arange(num)
    while alive.sum() > 1:
        k = int(best_K.argmax())
        if not best_K[k] > 0:
            break
        gone = int(partner_K[k])
        size_K[k] += size_K[gone]
        sum_KD[k] += sum_KD[gone]
        own_K[k] = evidence(size_K[k : k + 1], sum_KD[k : k + 1], space.between_D, noise)[0]
        owner_K[owner_K == gone] = k
        alive[gone] = False
        gain_KK[gone] = gain_KK[:, gone] = best_K[gone] = -np.inf
        gain_KK[k] = gain_KK[:, k] = gains(k)
        stale = alive & ((partner_K == k) | (partner_K == gone))
        stale[k] = True
        best_K[stale], partner_K[stale] = gain_KK[stale].max(axis=1), gain_KK[stale].argmax(axis=1)
        better = alive & (gain_KK[:, k] > best_K)
        best_K[better], partner_K[better] = gain_KK[better, k], k
    return compact(owner_K[cluster_N])
