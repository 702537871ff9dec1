"""From trials to a count: the parameter under which known classes are found again best.

The score of a parameter is the mean share of known classes found again, over draws and classes.
Parameters that score about as well form a plateau, and the estimate is the geometric middle of
their counts. Draws and known classes are resampled (bootstrap): the median over resamples is the
estimate, their spread the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.clustering.class_count.trials import Trial

Array = NDArray[np.float64]

LOW_ACCURACY = 0.4  # of known classes; below it the embeddings do not tell classes apart
NUM_RESAMPLES = 300


@dataclass(frozen=True)
class ClassCount:
    """The estimate, its interval (lowest, highest), and the whole curve by number of classes."""

    num_classes: int
    interval: tuple[int, int]
    curve: list[dict[str, Any]]  # num_classes, parameter, score, accuracy, accuracy_sd, ...
    warning: str | None


@dataclass(frozen=True)
class Choice:
    """How to choose.

    Args:
        num_known: there are at least as many classes.
        tie: scores this much below the best are as good.
        coverage: share of resampled estimates in the interval.
        seed: of resampling.
        weights: of known classes in the score; none: they count alike.
        most: largest number of classes that could be found.
    """

    num_known: int
    tie: float = 0.01
    coverage: float = 0.9
    seed: int = 0
    weights: tuple[float, ...] | None = None
    most: int | None = None


class Grid:
    """Trials by draw (J), parameter (P, ascending) and known class (C)."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.parameters = sorted({trial.parameter for trial in trials})
        draws = sorted({trial.draw for trial in trials})
        shape = len(draws), len(self.parameters)
        self.recall_JPC = np.full((*shape, len(trials[0].recall)), np.nan)
        self.num_JP = np.full(shape, np.nan)
        self.silhouette_JP, self.inertia_JP = np.full(shape, np.nan), np.full(shape, np.nan)
        for trial in trials:
            at = draws.index(trial.draw), self.parameters.index(trial.parameter)
            self.recall_JPC[at] = trial.recall
            self.num_JP[at] = trial.num_classes
            self.silhouette_JP[at], self.inertia_JP[at] = trial.silhouette, trial.inertia


def choose(trials: Sequence[Trial], choice: Choice) -> ClassCount:
    """The count of an estimator from all of its trials."""
    grid = Grid(trials)
    counts, plateaus = _resample(grid, choice)
    estimate = float(np.exp(np.median(np.log(counts))))
    tail = (1 - choice.coverage) / 2
    low, high = np.quantile(np.concatenate([counts, plateaus]), [tail, 1 - tail])
    num = max(round(estimate), choice.num_known)
    interval = (
        max(min(math.floor(low), num), choice.num_known),
        max(math.ceil(high), num),
    )
    curve = _curve(grid, choice)
    return ClassCount(num, interval, curve, _warning(num, interval, curve, choice.most))


def score(recall_JPC: Array, weight_C: Array | None = None) -> Array:
    """Mean recall per parameter: over draws for each class, then over classes."""
    judged_JPC = np.isfinite(recall_JPC)
    total_PC = np.where(judged_JPC, recall_JPC, 0).sum(axis=0)
    weight_PC = judged_JPC.any(axis=0) * (1.0 if weight_C is None else weight_C)
    recall_PC = total_PC / np.maximum(judged_JPC.sum(axis=0), 1)
    return (weight_PC * recall_PC).sum(axis=1) / np.maximum(weight_PC.sum(axis=1), 1e-12)


def plateau(score_P: Array, tie: float) -> NDArray[np.int64]:
    """Indices of the run around the best score that is at most ``tie`` lower."""
    good = score_P >= score_P.max() - tie
    low = high = int(score_P.argmax())
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(good) and good[high + 1]:
        high += 1
    return np.arange(low, high + 1)


def _resample(grid: Grid, choice: Choice) -> tuple[Array, Array]:
    """Bootstrap estimates, and counts of single draws at single parameters of their plateaus."""
    generator = np.random.default_rng(choice.seed)
    num_draws = len(grid.recall_JPC)
    weight_C = _weights(grid, choice)
    judges = np.flatnonzero(np.isfinite(grid.recall_JPC).any(axis=(0, 1)))
    counts, singles = [], []
    for _ in range(NUM_RESAMPLES):
        draws = generator.integers(num_draws, size=num_draws)
        classes = generator.choice(judges, size=len(judges))
        best = plateau(score(grid.recall_JPC[:, :, classes], weight_C[classes]), choice.tie)
        logs = np.log(grid.num_JP[draws][:, best])
        counts.append(np.exp(logs.mean()))
        singles.append(np.exp(logs[0, generator.integers(len(best))]))
    return np.array(counts), np.array(singles)


def _weights(grid: Grid, choice: Choice) -> Array:
    num_known = grid.recall_JPC.shape[2]
    return np.ones(num_known) if choice.weights is None else np.array(choice.weights)


def _curve(grid: Grid, choice: Choice) -> list[dict[str, Any]]:
    """A row per number of classes; parameters that lead to the same number are averaged."""
    score_P = score(grid.recall_JPC, _weights(grid, choice))
    num_P = np.exp(np.log(grid.num_JP).mean(axis=0)).round().astype(int)
    with np.errstate(invalid="ignore"):
        draws_JP = np.nanmean(np.where(np.isfinite(grid.recall_JPC), grid.recall_JPC, np.nan), 2)
    rows = []
    for num in np.unique(num_P):
        mine = num_P == num
        rows.append(
            {
                "num_classes": int(num),
                "parameter": float(np.array(grid.parameters)[mine].mean()),
                "score": float(score_P[mine].mean()),
                "accuracy": float(score_P[mine].mean()),
                "accuracy_sd": float(draws_JP[:, mine].mean(axis=1).std()),
                "silhouette": float(grid.silhouette_JP[:, mine].mean()),
                "inertia": float(grid.inertia_JP[:, mine].mean()),
            }
        )
    return rows


def _warning(
    num: int, interval: tuple[int, int], curve: Sequence[dict[str, Any]], most: int | None
) -> str | None:
    low, high = interval
    if most is not None and num >= most:
        return "the best count is the largest one tried: raise max_classes"
    best = max(row["score"] for row in curve)
    if best < LOW_ACCURACY:
        return (
            f"even known classes are found again for only {best:.0%} of their crops: the "
            "embeddings do not separate classes well, take the count as a guess"
        )
    if high >= 2 * low:
        return f"the curve is flat: anything from {low} to {high} classes fits about as well"
    return None
