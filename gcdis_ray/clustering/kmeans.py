"""k-means and semi-supervised k-means by matrix products. The one home of faiss.

Shape letters: N points, M of them free to move, D dimensions, K clusters, L labeled classes.

Semi-supervised k-means (Vaze et al. 2022, Generalized Category Discovery): cluster c < L belongs
to labeled class c; a labeled point never leaves the cluster of its class, an unlabeled one may go
anywhere.

Memory: beyond the points a few numbers per point (index, cluster, distance), some K x D matrices,
one block of rows, and the sample of points that starts are drawn from. There is neither an N x K
matrix nor a second copy of the points.

Digits: |x|^2 - 2xc + |c|^2 loses all of them where points lie far from zero and near each other.
Blocks are therefore taken relative to the points' mean, sums over blocks are float64, and distances
that are returned or compared across points come from differences, so equal points have distance 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from gcdis_ray.errors import ConfigError, GcdisError

Backend = Literal["torch", "faiss"]
_BLOCK = 1 << 20  # numbers of a block, its distances to all centers included
_GPU_SCRATCH_BYTES = 256 << 20  # faiss would take a tenth of the GPU and more
_START_POINTS = 1 << 16
_START_POINTS_PER_CLUSTER = 50


@dataclass(frozen=True)
class Clustering:
    """A local minimum of the sum of squared distances."""

    centers_KD: Tensor  # each the mean of its cluster
    cluster_N: Tensor  # int64
    inertia: float  # sum over all points of the squared distance to their own center
    num_iterations: int


@torch.no_grad()
def kmeans(
    points_ND: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    *,
    labels_N: Tensor | None = None,
    start_KD: Tensor | None = None,
    start_points: int | None = None,
    n_init: int = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    backend: Backend = "torch",
) -> Clustering:
    """Lloyd's iterations from greedy k-means++ starts; the best of ``n_init``.

    Args:
        points_ND: finite float32 or float64.
        num_clusters: K, at most N; with labels at most L + M.
        generator: the only source of randomness, on the CPU.
        labels_N: int64 labeled class of each point, negative where unlabeled. Every class in
            0..L-1 must have a labeled point. None: plain k-means.
        start_KD: where centers begin, instead of k-means++.
        start_points: k-means++ looks at a random sample of at most this many unlabeled points,
            since it reads all of them once per center. None: 65,536, or 50 per cluster if more.
            Clusters of few points in many can be missed; N looks at all.
        n_init: starts, at least 1; a given start is run once.
        max_iterations: at least 1.
        tolerance: stop when the squared shift of all centers together is below this share of the
            points' total variance per point. Unmoved points always stop.
        backend: who searches the nearest center, on the device of the points. faiss searches in
            float32.

    Returns:
        the clustering of least inertia. An empty cluster is re-seeded with the unlabeled point
        farthest from its center, so that every cluster holds a point (if there are enough
        distinct ones; the center of one that stays empty does not move).

    Raises:
        GcdisError: more clusters than points, or than labels and unlabeled points can fill, or
            fewer than labeled classes; a class without a labeled point; a start of another shape.
        ConfigError: faiss is asked for and not installed, or not for GPUs and points are on one.
    """
    num_points, dims = points_ND.shape
    if not 1 <= num_clusters <= num_points:
        raise GcdisError(f"{num_clusters} clusters of {num_points} points")
    if n_init < 1 or max_iterations < 1:
        raise GcdisError(f"n_init {n_init} and max_iterations {max_iterations} must be at least 1")
    if start_KD is not None and start_KD.shape != (num_clusters, dims):
        raise GcdisError(f"start_KD is {tuple(start_KD.shape)}, not {(num_clusters, dims)}")
    free, held = _split(points_ND, labels_N, num_clusters)
    whole = _Rows(points_ND, free.origin_D)
    spread = sum(float(block.square_().sum(dtype=torch.float64)) for _, block in whole.blocks())
    limit = tolerance * spread / num_points
    best: Clustering | None = None
    for _ in range(n_init if start_KD is None else 1):
        if start_KD is None:
            most = start_points or max(_START_POINTS, _START_POINTS_PER_CLUSTER * num_clusters)
            centers_KD = _start(free, held, num_clusters, generator, max(most, num_clusters))
        else:
            centers_KD = start_KD.to(points_ND) - free.origin_D
        found = _lloyd(free, held, centers_KD, max_iterations, limit, backend)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


@torch.no_grad()
def nearest(
    points_ND: Tensor, centers_KD: Tensor, backend: Backend = "torch"
) -> tuple[Tensor, Tensor]:
    """Nearest center of each point.

    Returns:
        index (N,) int64, lowest among equals, and squared distance (N,) >= 0.
    """
    origin_D = centers_KD.mean(dim=0)
    rows, moved_KD = _Rows(points_ND, origin_D), centers_KD - origin_D
    search = _searcher(moved_KD, backend)
    index_N = torch.empty(len(rows), dtype=torch.int64, device=points_ND.device)
    for where, block in rows.blocks(len(centers_KD)):
        index_N[where] = search(block)
    return index_N, _squared(rows, moved_KD, index_N)


@torch.no_grad()
def means(points_ND: Tensor, cluster_N: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Mean (K, D) and size (K,) of each cluster; the mean of an empty one is zero."""
    rows = _Rows(points_ND, points_ND.mean(dim=0))
    size_K = torch.bincount(cluster_N, minlength=num_clusters)
    mean_KD = _sums(rows, cluster_N, num_clusters) / size_K.clamp(min=1)[:, None]
    return torch.where(size_K[:, None] > 0, mean_KD + rows.origin_D, 0).to(points_ND), size_K


# ------------------------------------------------------------ rows, a block at a time


@dataclass(frozen=True)
class _Rows:
    """Some rows of the points, relative to ``origin_D``; only a block of them exists at a time."""

    points_ND: Tensor
    origin_D: Tensor
    row_M: Tensor | None = None  # int64; None: all

    def __len__(self) -> int:
        return len(self.points_ND) if self.row_M is None else len(self.row_M)

    def take(self, index: Tensor) -> Tensor:
        """A copy of the rows at ``index``, which counts within these rows."""
        if self.row_M is not None:
            index = self.row_M[index]
        return self.points_ND[index].sub_(self.origin_D)

    def blocks(self, beside: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Where a block lies, and the block; ``beside`` is what a row needs beside itself."""
        dims = self.points_ND.shape[1]
        step = max(_BLOCK // (dims + beside), 4 * dims)  # else K x D sums cost more than products
        for start in range(0, len(self), step):
            where = slice(start, start + step)
            if self.row_M is None:
                yield where, self.points_ND[where] - self.origin_D
            else:
                yield where, self.points_ND[self.row_M[where]].sub_(self.origin_D)


@dataclass(frozen=True)
class _Held:
    """Labeled points: they stay, so they are summed once."""

    rows: _Rows
    cluster_M: Tensor
    sum_KD: Tensor  # float64
    size_K: Tensor


def _split(points_ND: Tensor, labels_N: Tensor | None, num_clusters: int) -> tuple[_Rows, _Held]:
    """Points that may move and points that may not."""
    origin_D, device = points_ND.mean(dim=0), points_ND.device
    free_M, held_M = None, torch.zeros(0, dtype=torch.int64, device=device)
    cluster_M = held_M
    if labels_N is not None and bool((labels_N >= 0).any()):
        free_M, held_M = (torch.nonzero(some).flatten() for some in (labels_N < 0, labels_N >= 0))
        cluster_M = labels_N[held_M].to(torch.int64)
        num_known = int(cluster_M.max()) + 1
        if num_clusters < num_known:
            raise GcdisError(f"{num_clusters} clusters for {num_known} labeled classes")
        absent = torch.nonzero(torch.bincount(cluster_M) == 0).flatten().tolist()
        if absent:
            raise GcdisError(
                f"no labeled point of class {absent[0]}, but of class {num_known - 1}",
                fix="number the classes that have labels from 0 without gaps",
            )
        if len(free_M) < num_clusters - num_known:
            raise GcdisError(
                f"{len(free_M)} unlabeled points for {num_clusters - num_known} further clusters"
            )
    held = _Rows(points_ND, origin_D, held_M)
    size_K = torch.bincount(cluster_M, minlength=num_clusters)
    sum_KD = _sums(held, cluster_M, num_clusters)
    return _Rows(points_ND, origin_D, free_M), _Held(held, cluster_M, sum_KD, size_K)


def _add(sum_KD: Tensor, block_RD: Tensor, cluster_R: Tensor) -> None:
    """Adds the rows of a block to the float64 sums of their clusters."""
    sum_KD += block_RD.new_zeros(sum_KD.shape).index_add_(0, cluster_R, block_RD)


def _sums(rows: _Rows, cluster_M: Tensor, num_clusters: int) -> Tensor:
    origin_D = rows.origin_D
    sum_KD = origin_D.new_zeros(num_clusters, len(origin_D), dtype=torch.float64)
    for where, block in rows.blocks():
        _add(sum_KD, block, cluster_M[where])
    return sum_KD


def _squared(rows: _Rows, centers_KD: Tensor, cluster_M: Tensor) -> Tensor:
    """(M,) squared distance of each row to the center of its cluster, by differences."""
    distance_M = centers_KD.new_empty(len(rows))
    for where, block in rows.blocks():
        distance_M[where] = block.sub_(centers_KD[cluster_M[where]]).square_().sum(dim=1)
    return distance_M


# ------------------------------------------------------------ search


def _searcher(centers_KD: Tensor, backend: Backend) -> Callable[[Tensor], Tensor]:
    """Tells the nearest center of each row of a block."""
    if backend == "faiss":
        return _faiss_searcher(centers_KD)
    square_K = (centers_KD**2).sum(dim=1)

    def search(block_RD: Tensor) -> Tensor:
        distance_RK = torch.addmm(square_K, block_RD, centers_KD.T, alpha=-2)
        if distance_RK.device.type == "cpu":  # NumPy's is six times as fast there
            return torch.from_numpy(distance_RK.numpy().argmin(axis=1))
        return distance_RK.argmin(dim=1)

    return search


def _faiss_searcher(centers_KD: Tensor) -> Callable[[Tensor], Tensor]:
    """Searches where the centers lie: an index of the CPU, or of the GPU that they are on."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "backend faiss is not installed",
            where="backend",
            fix="pip install 'gcdis-ray[cpu]' (or [gpu]), or choose backend: torch",
        ) from error
    index = _flat_index(faiss, centers_KD.shape[1], centers_KD.device)
    if centers_KD.device.type == "cuda":
        import faiss.contrib.torch_utils  # indices take tensors from here on

        index.add(centers_KD.float().contiguous())

        def search_there(block_RD: Tensor) -> Tensor:
            return index.search(block_RD.float().contiguous(), 1)[1][:, 0]

        return search_there
    index.add(centers_KD.float().cpu().contiguous().numpy())

    def search(block_RD: Tensor) -> Tensor:
        rows = block_RD.float().cpu().contiguous().numpy()
        chosen = index.search(rows, 1)[1]
        return torch.from_numpy(chosen[:, 0]).to(block_RD.device, torch.int64)

    return search


def _flat_index(faiss: Any, dims: int, device: torch.device) -> Any:
    """An empty index of squared distances on a device."""
    if device.type != "cuda":
        return faiss.IndexFlatL2(dims)
    if not hasattr(faiss, "GpuIndexFlatL2"):
        raise ConfigError(
            "the faiss that is installed has no index on GPUs",
            where="backend",
            fix="pip install 'gcdis-ray[gpu]' in the place of [cpu], or choose backend: torch",
        )
    place = faiss.GpuIndexFlatConfig()
    place.device = torch.cuda.current_device() if device.index is None else device.index
    return faiss.GpuIndexFlatL2(_gpu_resources(faiss, place.device), dims, place)


@lru_cache
def _gpu_resources(faiss: Any, device: int) -> Any:
    """What indices of a GPU share: scratch memory and streams. There is an index per iteration."""
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_GPU_SCRATCH_BYTES)
    return resources


# ------------------------------------------------------------ the algorithm


def _start(
    free: _Rows, held: _Held, num_clusters: int, generator: torch.Generator, most: int
) -> Tensor:
    """Means of the labeled classes, then greedy k-means++ over a sample of the unlabeled points.

    Each new center is the best of 2 + ln K candidates drawn with probability proportional to the
    squared distance from the centers so far (as in scikit-learn); only distances to the candidates
    are computed.
    """
    num_known = int((held.size_K > 0).sum())
    centers_KD = free.origin_D.new_empty(num_clusters, len(free.origin_D))
    centers_KD[:num_known] = held.sum_KD[:num_known] / held.size_K[:num_known, None]
    if num_known == num_clusters:
        return centers_KD
    index = torch.arange(len(free))
    if most < len(free):
        index = torch.randperm(len(free), generator=generator)[:most].sort().values
    sample_SD = free.take(index.to(centers_KD.device))
    num_given = max(num_known, 1)
    if not num_known:
        centers_KD[0] = sample_SD[int(torch.randint(len(sample_SD), (1,), generator=generator))]
    closest_S = nearest(sample_SD, centers_KD[:num_given])[1]
    square_S = nearest(sample_SD, centers_KD.new_zeros(1, centers_KD.shape[1]))[1]
    num_trials = 2 + int(math.log(num_clusters))
    for k in range(num_given, num_clusters):
        mass_S = torch.cumsum(closest_S, 0, dtype=torch.float64)
        draw = torch.rand(num_trials, generator=generator, dtype=torch.float64).to(mass_S.device)
        tried = torch.searchsorted(mass_S, draw * mass_S[-1], right=True)
        tried = tried.clamp_(max=len(sample_SD) - 1)
        offset_TS = square_S[tried, None] + square_S
        distance_TS = torch.addmm(offset_TS, sample_SD[tried], sample_SD.T, alpha=-2)
        distance_TS = torch.minimum(distance_TS.clamp_(min=0), closest_S)
        chosen = int(distance_TS.sum(dim=1).argmin())
        closest_S = distance_TS[chosen]
        centers_KD[k] = sample_SD[tried[chosen]]
    return centers_KD


def _lloyd(
    free: _Rows,
    held: _Held,
    centers_KD: Tensor,
    max_iterations: int,
    limit: float,
    backend: Backend,
) -> Clustering:
    num_clusters = len(centers_KD)
    cluster_M, shift, num_iterations = held.cluster_M, math.inf, 0
    while num_iterations < max_iterations and shift > limit:
        num_iterations += 1
        cluster_M, sum_KD = _assign(free, centers_KD, backend)
        size_K = held.size_K + torch.bincount(cluster_M, minlength=num_clusters)
        if bool((size_K == 0).any()):
            _fill_empty(free, cluster_M, centers_KD, size_K)
            sum_KD = _sums(free, cluster_M, num_clusters)
        mean_KD = ((held.sum_KD + sum_KD) / size_K[:, None]).to(centers_KD.dtype)
        mean_KD = torch.where(size_K[:, None] > 0, mean_KD, centers_KD)
        shift = float(((mean_KD - centers_KD) ** 2).sum())
        centers_KD = mean_KD
    inertia = 0.0
    cluster_N = cluster_M.new_empty(len(free.points_ND))
    for rows, cluster in ((free, cluster_M), (held.rows, held.cluster_M)):
        inertia += float(_squared(rows, centers_KD, cluster).sum(dtype=torch.float64))
        cluster_N[slice(None) if rows.row_M is None else rows.row_M] = cluster
    return Clustering(centers_KD + free.origin_D, cluster_N, inertia, num_iterations)


def _assign(free: _Rows, centers_KD: Tensor, backend: Backend) -> tuple[Tensor, Tensor]:
    """Nearest center of each unlabeled point, and the sums of the clusters, in one reading."""
    search = _searcher(centers_KD, backend)
    cluster_M = torch.empty(len(free), dtype=torch.int64, device=centers_KD.device)
    sum_KD = torch.zeros_like(centers_KD, dtype=torch.float64)
    for where, block in free.blocks(len(centers_KD)):
        cluster_M[where] = search(block)
        _add(sum_KD, block, cluster_M[where])
    return cluster_M, sum_KD


def _fill_empty(free: _Rows, cluster_M: Tensor, centers_KD: Tensor, size_K: Tensor) -> None:
    """Gives each empty cluster the farthest unlabeled point of a cluster with more than one.

    Changes ``cluster_M`` and ``size_K``. K candidates are enough: each fills a cluster or is the
    last of its own.
    """
    empty = torch.nonzero(size_K == 0).flatten().tolist()
    distance_M = _squared(free, centers_KD, cluster_M)
    far = torch.topk(distance_M, min(len(free), len(size_K)))
    for point, distance in zip(far.indices.tolist(), far.values.tolist(), strict=True):
        owner = int(cluster_M[point])
        if not empty or distance == 0:
            break
        if size_K[owner] > 1:
            cluster_M[point] = empty.pop(0)
            size_K[owner] -= 1
            size_K[cluster_M[point]] += 1
