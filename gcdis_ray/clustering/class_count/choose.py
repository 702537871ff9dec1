"""From trials to a count: the parameter under which known classes are found again best.

The score of a parameter is the mean share of known classes that is found again, over draws and
classes.
Parameters that score about as well form a plateau, and the estimate is the geometric middle of
their counts. Draws and known classes are resampled (bootstrap): the median over resamples is the
estimate, their spread the interval. It cannot know of an error that all draws share, so it is
widened a little.

Estimators that err in different directions are better together: :func:`combine` takes the geometric
mean of their estimates, weighed by their scores. Its interval resamples the estimators as well, so
that it is as wide as they disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.clustering.class_count.trials import Trial
from gcdis_ray.words import hardly_known

Array = NDArray[np.float64]

LOW_ACCURACY = 0.4  # of known classes; below it the embeddings do not tell classes apart
NUM_RESAMPLES = 300
SURE = 0.02  # scores nearer to 0 or 1 than this say no more about an estimator
MARGIN = 0.1  # either end moves out by this share, for what all draws have in common


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
        most: largest number of classes to try: a count that is not below it gets a warning.
    """

    num_known: int
    tie: float = 0.005
    coverage: float = 0.9
    seed: int = 0
    most: int | None = None


class Grid:
    """Trials by draw (J), parameter (P, ascending) and known class (C)."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.parameter_P = np.array(sorted({trial.parameter for trial in trials}))
        parameters, draws = self.parameter_P.tolist(), sorted({trial.draw for trial in trials})
        shape = len(draws), len(parameters)
        self.recall_JPC = np.zeros((*shape, len(trials[0].recall)))
        self.weight_JPC = np.zeros_like(self.recall_JPC)
        self.num_JP = np.zeros(shape)
        self.silhouette_JP, self.inertia_JP = np.zeros(shape), np.zeros(shape)
        for trial in trials:
            at = draws.index(trial.draw), parameters.index(trial.parameter)
            self.recall_JPC[at], self.weight_JPC[at] = trial.recall, trial.weight
            self.num_JP[at] = trial.num_classes
            self.silhouette_JP[at], self.inertia_JP[at] = trial.silhouette, trial.inertia

    def score(self, classes: NDArray[np.int64] | None = None) -> Array:
        """Weighted mean recall per parameter, smoothed: a value and half of either neighbour.

        Args:
            classes: those that count, with repetitions; None for all.
        """
        return _smooth(_mean(self, slice(None) if classes is None else classes, (0, 2)))


def _mean(grid: Grid, classes: Any, axes: Any) -> Array:
    weight_JPC = grid.weight_JPC[:, :, classes]
    total = (weight_JPC * grid.recall_JPC[:, :, classes]).sum(axis=axes)
    return total / np.maximum(weight_JPC.sum(axis=axes), 1e-12)


def _smooth(value_P: Array) -> Array:
    padded = np.pad(value_P, 1, mode="edge")
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def choose(trials: Sequence[Trial], choice: Choice) -> ClassCount:
    """The count of an estimator from all of its trials."""
    grid = Grid(trials)
    resampled = _resample(grid, choice)
    curve = _curve(grid)
    return _count(float(np.median(resampled.whole_R)), resampled, curve, choice)


def combine(trials: Sequence[Sequence[Trial]], choice: Choice) -> ClassCount:
    """The weighted geometric mean of several estimators' counts, from all of their trials.

    An estimator weighs the odds that it finds a crop of a known class again, at its best: one that
    does not find classes has little to say of how many there are. None counts more than the largest
    number to try. A resampled count is the mean of as many estimators, drawn by their weights with
    replacement: the interval contains what they disagree by. There is no curve of all of them.
    """
    grids = [Grid(mine) for mine in trials]
    found = [_resample(grid, choice) for grid in grids]
    most = max(choice.most or math.inf, choice.num_known)
    log_RM = [
        np.log(np.minimum(np.stack(count_MR, axis=1), most))
        for count_MR in zip(*found, strict=True)  # of the whole, then the single counts
    ]
    score_M = np.array([grid.score().max() for grid in grids]).clip(SURE, 1 - SURE)
    weight_M = score_M / (1 - score_M)
    weight_M /= weight_M.sum()
    log_M = np.maximum(np.median(log_RM[0], axis=0), np.log(choice.num_known))
    middle = float(np.exp(log_M @ weight_M))
    drawn_RM = np.random.default_rng(choice.seed).choice(
        len(grids), size=log_RM[0].shape, p=weight_M
    )
    means = [np.take_along_axis(log, drawn_RM, axis=1).mean(axis=1) for log in log_RM]
    curves = [point for grid in grids for point in _curve(grid)]
    count = _count(middle, Resampled(*map(np.exp, means)), curves, choice)
    return replace(count, curve=[])


def _count(
    middle: float, resampled: Resampled, curve: list[dict[str, Any]], choice: Choice
) -> ClassCount:
    tail = (1 - choice.coverage) / 2
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail])
    num = max(round(middle), choice.num_known)
    low, high = math.floor(low * (1 - MARGIN)), math.ceil(high * (1 + MARGIN))
    interval = max(min(low, num), choice.num_known), max(high, num)
    return ClassCount(num, interval, curve, _warning(num, interval, curve, choice.most))


def plateau(score_P: Array, tie: float) -> NDArray[np.int64]:
    """Indices of the run around the best score that is at most ``tie`` lower."""
    good = score_P >= score_P.max() - tie
    low = high = int(score_P.argmax())
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(good) and good[high + 1]:
        high += 1
    return np.arange(low, high + 1)


class Resampled(NamedTuple):
    """Counts of bootstrap samples of known classes and draws: the middle of the plateau over all
    draws of the sample, and one draw at one place of the plateau, which varies more."""

    whole_R: Array
    single_R: Array


def _resample(grid: Grid, choice: Choice) -> Resampled:
    generator = np.random.default_rng(choice.seed)
    num_draws = len(grid.num_JP)
    judges = np.flatnonzero(grid.weight_JPC.sum(axis=(0, 1)))
    whole, single = np.empty(NUM_RESAMPLES), np.empty(NUM_RESAMPLES)
    for n in range(NUM_RESAMPLES):
        best = plateau(grid.score(generator.choice(judges, size=len(judges))), choice.tie)
        draws = generator.integers(num_draws, size=num_draws)
        whole[n] = np.log(grid.num_JP[draws][:, best]).mean()
        single[n] = np.log(grid.num_JP[generator.integers(num_draws), generator.choice(best)])
    # 7.9999999 is 8, not down to 7
    return Resampled(np.exp(whole).round(6), np.exp(single).round(6))


def _curve(grid: Grid) -> list[dict[str, Any]]:
    """A row per number of classes; parameters that lead to the same number are averaged."""
    columns = {
        "parameter": grid.parameter_P,
        "score": grid.score(),
        "accuracy": _mean(grid, slice(None), (0, 2)),
        "accuracy_sd": _mean(grid, slice(None), 2).std(axis=0),
        "silhouette": grid.silhouette_JP.mean(axis=0),
        "inertia": grid.inertia_JP.mean(axis=0),
    }
    num_P = np.exp(np.log(grid.num_JP).mean(axis=0)).round().astype(int)
    return [
        {"num_classes": int(num)}
        | {name: float(value_P[num_P == num].mean()) for name, value_P in columns.items()}
        for num in np.unique(num_P)
    ]


def _warning(
    num: int, interval: tuple[int, int], curve: Sequence[dict[str, Any]], most: int | None
) -> str | None:
    low, high = interval
    if most is not None and num >= most:
        return f"the best count is not below the largest to try ({most}): raise max_classes"
    best = max(row["score"] for row in curve)
    if best < LOW_ACCURACY:
        return (
            f"even known classes are found again for only {best:.0%} of their crops: the "
            "embeddings do not separate classes well, take the count as a guess"
        )
    if hardly_known(low, high):
        return f"there are {low:,} to {high:,} classes, which is hardly known; {num:,} is a guess"
    return None
