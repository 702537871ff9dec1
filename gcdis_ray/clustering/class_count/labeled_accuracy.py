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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.clustering.class_count.measures import measure
from gcdis_ray.clustering.class_count.points import Settings, prepare

SMOOTHING = 0.2  # in ln K: at K = 10 the values from 9 to 12 are averaged
LOW_ACCURACY = 0.4  # of known classes; below it the embeddings do not tell classes apart


@dataclass(frozen=True)
class Search:
    """How to search.

    Args:
        max_classes: largest K tried.
        settings: of draws and of k-means.
        num_seeds: k-means runs per K, each on its own draw of labeled points.
        class_balanced: average the accuracy over known classes, not over points.
        silhouette_weight: w above; 0 is labeled accuracy alone.
        tie: share of J below its maximum that counts as equally good, for the estimate.
        flatness: the same for the interval.
        num_candidates: values of K on the first, logarithmic grid; then as many around the best.
    """

    max_classes: int
    settings: Settings = field(default_factory=Settings)
    num_seeds: int = 4
    class_balanced: bool = True
    silhouette_weight: float = 0.5
    tie: float = 0.03
    flatness: float = 0.06
    num_candidates: int = 20


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
    draws = [
        prepare(embeddings_ND, labels_N, search.settings, seed * 1000 + n)
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


def _try(
    points_ND: Tensor, labels_N: Tensor, num_clusters: int, search: Search, seed: int
) -> tuple[float, float]:
    found = measure(points_ND, labels_N, num_clusters, search.settings, seed)
    accuracy = found.balanced_accuracy if search.class_balanced else found.accuracy
    return accuracy, found.silhouette


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
