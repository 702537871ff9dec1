"""k-means and semi-supervised k-means by matrix products. The one home of faiss.

Shape letters: N points, D dimensions, K clusters.

Semi-supervised k-means (Vaze et al. 2022): cluster c < num_known belongs to known class c; a
labeled point never leaves the cluster of its class, an unlabeled one may go anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gcdis_ray.errors import ConfigError, GcdisError

Backend = Literal["torch", "faiss"]
_CHUNK = 1 << 24  # entries of a distance block held at a time


@dataclass(frozen=True)
class Clustering:
    """A local minimum of the sum of squared distances."""

    centers_KD: Tensor  # each the mean of its cluster
    cluster_N: Tensor  # int64
    inertia: float  # sum over all points of the squared distance to their own center
    num_iterations: int


def kmeans(
    points_ND: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    *,
    labels_N: Tensor | None = None,
    n_init: int = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    backend: Backend = "torch",
) -> Clustering:
    """Lloyd's iterations from greedy k-means++ starts; the best of ``n_init``.

    Args:
        points_ND: finite floats.
        num_clusters: K, at most N; with labels more than the largest label.
        generator: the only source of randomness.
        labels_N: int64 known class of each point, -1 where unlabeled. Every class in
            0..max must have a labeled point. None: plain k-means.
        tolerance: stop when the squared shift of all centers together is below this share of the
            points' total variance per point.
        backend: who searches the nearest center.

    Returns:
        the clustering of least inertia. An empty cluster is re-seeded with the unlabeled point
        farthest from its center, so that every cluster holds a point (if there are enough
        distinct ones).

    Raises:
        GcdisError: more clusters than points, or fewer than the labels need.
        ConfigError: faiss is asked for and not installed.
    """
    num_points = len(points_ND)
    if not 1 <= num_clusters <= num_points:
        raise GcdisError(f"{num_clusters} clusters of {num_points} points")
    num_known = 0 if labels_N is None else int(labels_N.max().clamp(min=-1)) + 1
    if num_clusters < num_known:
        raise GcdisError(f"{num_clusters} clusters for {num_known} labeled classes")
    pinned_N = torch.full((num_points,), -1) if labels_N is None else labels_N.to(torch.int64)
    best: Clustering | None = None
    for _ in range(n_init):
        centers = _start(points_ND, pinned_N, num_known, num_clusters, generator)
        found = _lloyd(points_ND, pinned_N, centers, max_iterations, tolerance, backend)
        if best is None or found.inertia < best.inertia:
            best = found
    if best is None:
        raise GcdisError(f"n_init must be at least 1, not {n_init}")
    return best


def nearest(
    points_ND: Tensor, centers_KD: Tensor, backend: Backend = "torch"
) -> tuple[Tensor, Tensor]:
    """Nearest center of each point.

    Returns:
        index (N,) int64, lowest among equals, and squared distance (N,) >= 0.
    """
    if backend == "faiss":
        return _nearest_faiss(points_ND, centers_KD)
    square_K = (centers_KD**2).sum(1)
    index = torch.empty(len(points_ND), dtype=torch.int64)
    distance = points_ND.new_empty(len(points_ND))
    rows = max(1, _CHUNK // len(centers_KD))
    for start in range(0, len(points_ND), rows):
        part = points_ND[start : start + rows]
        value, chosen = torch.addmm(square_K, part, centers_KD.T, alpha=-2).min(dim=1)
        index[start : start + rows] = chosen
        distance[start : start + rows] = value + (part**2).sum(1)
    return index, distance.clamp_(min=0)


def _nearest_faiss(points_ND: Tensor, centers_KD: Tensor) -> tuple[Tensor, Tensor]:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "backend faiss is not installed",
            where="backend",
            fix="pip install 'gcdis-ray[cpu]' (or [gpu]), or choose backend: torch",
        ) from error
    index = faiss.IndexFlatL2(centers_KD.shape[1])
    index.add(centers_KD.float().contiguous().numpy())  # pyright: ignore[reportCallIssue]
    distance, chosen = index.search(points_ND.float().contiguous().numpy(), 1)  # pyright: ignore[reportCallIssue]
    return (
        torch.from_numpy(chosen[:, 0]).to(torch.int64),
        torch.from_numpy(distance[:, 0]).to(points_ND.dtype).clamp_(min=0),
    )


def means(points_ND: Tensor, cluster_N: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Mean (K, D) and size (K,) of each cluster; the mean of an empty one is zero."""
    sums = points_ND.new_zeros(num_clusters, points_ND.shape[1]).index_add_(0, cluster_N, points_ND)
    size_K = torch.bincount(cluster_N, minlength=num_clusters)
    return sums / size_K.clamp(min=1)[:, None].to(points_ND.dtype), size_K


def _start(
    points_ND: Tensor,
    pinned_N: Tensor,
    num_known: int,
    num_clusters: int,
    generator: torch.Generator,
) -> Tensor:
    """Means of the labeled classes, then greedy k-means++ over the unlabeled points.

    Each new center is the best of 2 + ln K candidates drawn with probability proportional to the
    squared distance from the centers so far; only distances to the candidates are computed.
    """
    centers = points_ND.new_empty(num_clusters, points_ND.shape[1])
    labeled = pinned_N >= 0
    free = points_ND[~labeled] if bool((~labeled).any()) else points_ND
    square = (free**2).sum(1)
    if num_known:
        centers[:num_known], _ = means(points_ND[labeled], pinned_N[labeled], num_known)
        closest = nearest(free, centers[:num_known])[1]
    else:
        centers[0] = free[int(torch.randint(len(free), (1,), generator=generator))]
        closest = ((free - centers[0]) ** 2).sum(1)
    num_trials = 2 + int(math.log(num_clusters))
    for k in range(max(num_known, 1), num_clusters):
        mass = torch.cumsum(closest.double(), 0)
        draw = torch.rand(num_trials, generator=generator, dtype=torch.float64) * mass[-1]
        tried = torch.searchsorted(mass, draw, right=True).clamp_(max=len(free) - 1)
        distance = square[:, None] + square[tried] - 2 * free @ free[tried].T
        candidate = torch.minimum(closest[:, None], distance.clamp_(min=0))
        chosen = int(candidate.double().sum(0).argmin())
        closest = candidate[:, chosen]
        centers[k] = free[tried[chosen]]
    return centers


def _lloyd(
    points_ND: Tensor,
    pinned_N: Tensor,
    centers_KD: Tensor,
    max_iterations: int,
    tolerance: float,
    backend: Backend,
) -> Clustering:
    limit = tolerance * float(points_ND.var(0, correction=0).sum())
    cluster_N, num_iterations, settled = pinned_N, 0, False
    while num_iterations < max_iterations and not settled:
        num_iterations += 1
        before = cluster_N
        cluster_N, distance_N = _assign(points_ND, pinned_N, centers_KD, backend)
        cluster_N = _fill_empty(cluster_N, distance_N, pinned_N, len(centers_KD))
        moved, _ = means(points_ND, cluster_N, len(centers_KD))
        shift = float(((moved - centers_KD) ** 2).sum())
        centers_KD = moved
        settled = shift <= limit or torch.equal(before, cluster_N)
    inertia = float(((points_ND - centers_KD[cluster_N]) ** 2).sum(dtype=torch.float64))
    return Clustering(centers_KD, cluster_N, inertia, num_iterations)


def _assign(
    points_ND: Tensor, pinned_N: Tensor, centers_KD: Tensor, backend: Backend
) -> tuple[Tensor, Tensor]:
    cluster_N, distance_N = nearest(points_ND, centers_KD, backend)
    labeled = pinned_N >= 0
    if bool(labeled.any()):
        cluster_N = torch.where(labeled, pinned_N, cluster_N)
        distance_N = distance_N.clone()
        distance_N[labeled] = ((points_ND[labeled] - centers_KD[pinned_N[labeled]]) ** 2).sum(1)
    return cluster_N, distance_N


def _fill_empty(
    cluster_N: Tensor, distance_N: Tensor, pinned_N: Tensor, num_clusters: int
) -> Tensor:
    """Give each empty cluster the farthest unlabeled point of a cluster with more than one."""
    size_K = torch.bincount(cluster_N, minlength=num_clusters)
    empty = torch.nonzero(size_K == 0).flatten().tolist()
    if not empty:
        return cluster_N
    cluster_N = cluster_N.clone()
    order = torch.sort(distance_N, descending=True, stable=True).indices.tolist()
    for point in order:
        if not empty or float(distance_N[point]) == 0:
            break
        owner = int(cluster_N[point])
        if pinned_N[point] < 0 and size_K[owner] > 1:
            size_K[owner] -= 1
            cluster_N[point] = empty.pop(0)
            size_K[cluster_N[point]] += 1
    return cluster_N
