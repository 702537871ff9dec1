"""How many classes are there? From frozen embeddings and the labels of the known classes.

Labeled accuracy (Vaze et al. 2022): cluster labeled and unlabeled points together into K clusters
without using any label, match clusters to known classes one-to-one, and see what share of the
labeled points lies in its class's cluster. Too few clusters merge known classes, too many split
them. The curve is flat on its right side where surplus clusters only divide novel classes, so it
is joined with a second, label-free opinion that falls with K more slowly: the silhouette.

    J(K) = A(K) / max A + w * S(K) / max S,    smoothed over neighbouring K

The estimate is the largest K next to the best one whose J is as good but for a few percent: a
class too many costs discovery less than one too few. No label of an unlabeled point is ever seen.

Shape letters: N points, D dimensions, K clusters, C known classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gcdis_ray.clustering.kmeans import Backend, kmeans
from gcdis_ray.errors import DataError

SMOOTHING = 0.2  # in ln K: at K = 10 the values from 9 to 12 are averaged
LOW_ACCURACY = 0.4  # of known classes; below it the embeddings do not tell classes apart
MAX_ITERATIONS = 30


@dataclass(frozen=True)
class Search:
    """How to search.

    Args:
        max_classes: largest K tried.
        dims: principal components that are kept.
        num_seeds: k-means runs per K, each on its own draw of labeled points.
        n_init: starts per run.
        max_labeled_per_class, max_unlabeled: points drawn at most. Labeled points beyond a few
            dozen per class only make the known classes heavier than the novel ones.
        class_balanced: average the accuracy over known classes, not over points.
        silhouette_weight: w above; 0 is labeled accuracy alone.
        tie: share of J below its maximum that counts as equally good, for the estimate.
        flatness: the same for the interval.
        num_candidates: values of K on the first, logarithmic grid; then as many around the best.
    """

    max_classes: int
    dims: int = 64
    num_seeds: int = 4
    n_init: int = 2
    max_labeled_per_class: int = 60
    max_unlabeled: int = 20_000
    class_balanced: bool = True
    silhouette_weight: float = 0.5
    tie: float = 0.03
    flatness: float = 0.06
    num_candidates: int = 20
    backend: Backend = "torch"


@dataclass(frozen=True)
class ClassCount:
    """The estimate, the K that are about as good (lowest, highest), and the whole curve."""

    num_classes: int
    interval: tuple[int, int]
    curve: list[dict[str, Any]]  # num_classes, score, accuracy, accuracy_sd, silhouette
    warning: str | None


def estimate(
    embeddings_ND: Tensor,
    labels_N: Tensor,
    search: Search,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> ClassCount:
    """Estimate the number of classes.

    Args:
        embeddings_ND: of labeled and unlabeled points.
        labels_N: int64, known class or -1.
        seed: of the draws of points and of k-means.
        progress: called with the number of K done.

    Raises:
        DataError: no labeled or no unlabeled point.
    """
    labeled = labels_N >= 0
    if not bool(labeled.any()) or bool(labeled.all()):
        which = "unlabeled" if bool(labeled.any()) else "labeled"
        raise DataError(
            f"the number of classes cannot be estimated without {which} crops",
            where="stages.count",
            fix="set stages.count.num_novel",
        )
    draws = [
        _draw(embeddings_ND, labels_N, search, torch.Generator().manual_seed(seed * 1000 + n))
        for n in range(search.num_seeds)
    ]
    smallest = min(len(points) for points, _ in draws)
    lowest = min(max(2, int(labels_N.unique().numel()) - 1), smallest)
    highest = max(lowest, min(search.max_classes, smallest))
    found: dict[int, NDArray[np.float64]] = {}

    def try_all(candidates: Sequence[int]) -> None:
        for k in candidates:
            if k not in found:
                found[k] = np.array(
                    [
                        _try(points, labels, k, search, seed * 1000 + n)
                        for n, (points, labels) in enumerate(draws)
                    ]
                )
                progress(len(found))

    try_all(log_grid(lowest, highest, search.num_candidates))
    tried = sorted(found)
    best = tried[int(_scores(tried, found, search).argmax())]
    around = tried.index(best)
    low, high = tried[max(around - 2, 0)], tried[min(around + 2, len(tried) - 1)]
    try_all(log_grid(low, high, search.num_candidates))
    return _conclude(found, search)


def log_grid(low: int, high: int, num: int) -> list[int]:
    """At most ``num`` whole numbers from ``low`` to ``high``, evenly in their logarithm."""
    if high - low < num:
        return list(range(low, high + 1))
    return sorted({round(v) for v in np.geomspace(low, high, num).tolist()})


def labeled_accuracy(cluster_N: Tensor, labels_N: Tensor, class_balanced: bool) -> float:
    """Share of labeled points in the cluster that was matched to their class, one-to-one.

    Args:
        cluster_N, labels_N: of labeled points only.
        class_balanced: mean over classes of the share within each class.
    """
    labels = torch.unique(labels_N, return_inverse=True)[1]
    num_classes, num_clusters = int(labels.max()) + 1, int(cluster_N.max()) + 1
    counts_KC = torch.bincount(
        cluster_N * num_classes + labels, minlength=num_clusters * num_classes
    ).view(num_clusters, num_classes).double().numpy()  # fmt: skip
    weight_C = counts_KC.sum(axis=0) * num_classes if class_balanced else counts_KC.sum()
    share_KC = counts_KC / weight_C
    return float(share_KC[linear_sum_assignment(share_KC, maximize=True)].sum())


def silhouette(points_ND: Tensor, centers_KD: Tensor, cluster_N: Tensor) -> float:
    """Mean of (b - a) / max(a, b): distance a to the own, b to the nearest other center.

    The simplified silhouette, in [-1, 1]; 0 for a single cluster.
    """
    if len(centers_KD) < 2:
        return 0.0
    distance_NK = torch.cdist(points_ND, centers_KD)
    own = distance_NK.gather(1, cluster_N[:, None])[:, 0]
    other = distance_NK.scatter(1, cluster_N[:, None], math.inf).min(dim=1).values
    largest = torch.maximum(own, other)
    value = torch.where(largest > 0, (other - own) / largest, torch.zeros_like(own))
    return float(value.double().mean())


def _draw(
    embeddings_ND: Tensor, labels_N: Tensor, search: Search, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A sample of points as principal components of length 1, and its labels."""
    rows = []
    for label in torch.unique(labels_N).tolist():
        mine = torch.nonzero(labels_N == label).flatten()
        most = search.max_unlabeled if label < 0 else search.max_labeled_per_class
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:most]].sort().values)
    chosen = torch.cat(rows)
    return principal_components(embeddings_ND[chosen], search.dims), labels_N[chosen]


def principal_components(points_ND: Tensor, dims: int) -> Tensor:
    """The ``dims`` directions of most variance, rows scaled to length 1. Fewer if D is smaller."""
    centered = (points_ND - points_ND.mean(dim=0)).double()
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    return F.normalize((centered @ vectors[:, -dims:]).to(points_ND.dtype), dim=1)


def _try(
    points_ND: Tensor, labels_N: Tensor, num_clusters: int, search: Search, seed: int
) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed * 100_003 + num_clusters)
    found = kmeans(
        points_ND,
        num_clusters,
        generator,
        n_init=search.n_init,
        max_iterations=MAX_ITERATIONS,
        backend=search.backend,
    )
    labeled = labels_N >= 0
    accuracy = labeled_accuracy(found.cluster_N[labeled], labels_N[labeled], search.class_balanced)
    return accuracy, silhouette(points_ND, found.centers_KD, found.cluster_N)


def _scores(
    tried: Sequence[int], found: dict[int, NDArray[np.float64]], search: Search
) -> NDArray[np.float64]:
    """J of each K tried."""
    mean = np.array([found[k].mean(axis=0) for k in tried])
    accuracy, quality = mean[:, 0], np.clip(mean[:, 1], 0, None)
    raw = accuracy / max(accuracy.max(), 1e-12)
    raw = raw + search.silhouette_weight * quality / max(quality.max(), 1e-12)
    logs = np.log(tried)
    near = np.abs(logs[:, None] - logs[None, :]) <= SMOOTHING
    return (near * raw).sum(axis=1) / near.sum(axis=1)


def _conclude(found: dict[int, NDArray[np.float64]], search: Search) -> ClassCount:
    tried = sorted(found)
    score = _scores(tried, found, search)
    best = int(score.argmax())
    _, chosen = _around(score, best, search.tie)
    low, high = _around(score, best, max(search.flatness, search.tie))
    curve = [
        {
            "num_classes": k,
            "score": float(score[n]),
            "accuracy": float(found[k][:, 0].mean()),
            "accuracy_sd": float(found[k][:, 0].std()),
            "silhouette": float(found[k][:, 1].mean()),
        }
        for n, k in enumerate(tried)
    ]
    warning = None
    if tried[chosen] >= search.max_classes:
        warning = "the best count is the largest one tried: raise max_classes"
    elif tried[high] >= 2 * tried[low]:
        warning = (
            f"the curve is flat: anything from {tried[low]} to {tried[high]} classes fits about "
            "as well"
        )
    elif curve[chosen]["accuracy"] < LOW_ACCURACY:
        warning = (
            f"even known classes are found again for only {curve[chosen]['accuracy']:.0%} of their "
            "crops: the embeddings do not separate classes well, take the count as a guess"
        )
    return ClassCount(tried[chosen], (tried[low], tried[high]), curve, warning)


def _around(score: NDArray[np.float64], best: int, share: float) -> tuple[int, int]:
    """First and last index of the run around ``best`` that is at most ``share`` worse."""
    good = score >= score[best] * (1 - share)
    low = high = best
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(score) and good[high + 1]:
        high += 1
    return low, high
