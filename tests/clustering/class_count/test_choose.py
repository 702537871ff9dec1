"""From trials to a count, an interval and a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.clustering.class_count.choose import Choice, Grid, choose, combine, plateau
from gcdis_ray.clustering.class_count.trials import Trial, hidden_classes, judges, recalls

COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def _trials(peaks: Sequence[float], slope: float, best: float = 0.9) -> list[Trial]:
    """One draw per peak; recall of three classes falls from the peak by ``slope`` per ln K."""
    return [
        Trial(
            draw,
            float(k),
            k,
            (max(0.0, best - slope * abs(float(np.log(k / peak)))),) * 3,
            (1.0, 1.0, 1.0),
            0.5,
            0.1,
        )
        for draw, peak in enumerate(peaks)
        for k in COUNTS
    ]


def test_a_sharp_peak_is_the_count() -> None:
    found = choose(_trials([8, 8, 8], 0.5), Choice(3))
    assert found.num_classes == 8
    assert found.interval == (7, 9)  # the margin alone
    assert found.warning is None
    row = max(found.curve, key=lambda row: row["score"])
    assert (row["num_classes"], row["accuracy"], row["accuracy_sd"]) == (8, pytest.approx(0.9), 0)
    assert (row["silhouette"], row["inertia"]) == pytest.approx((0.5, 0.1))


def test_a_flat_curve_is_said_to_tell_little() -> None:
    found = choose(_trials([8, 8, 8], 0.0), Choice(2))
    low, high = found.interval
    assert low <= 3
    assert high >= 24
    assert f"there are {low} to {high} classes, which is hardly known" in str(found.warning)


def test_equal_parts_combine_to_themselves() -> None:
    trials = _trials([8, 8, 8], 0.5)
    alone, both = choose(trials, Choice(3)), combine([trials, trials], Choice(3))
    assert (both.num_classes, both.interval) == (alone.num_classes, alone.interval)
    assert both.warning is None
    assert not both.curve


def test_parts_that_disagree_combine_to_their_mean_with_a_range_as_wide_as_they_disagree() -> None:
    parts = [_trials([peak] * 3, 0.5) for peak in (4, 8, 16)]
    found = combine(parts, Choice(3))
    assert found.num_classes == 8
    low, high = found.interval
    assert low <= 5
    assert high >= 12
    assert "a guess" in str(found.warning)
    assert combine(parts[:1] * 3, Choice(11)).num_classes == 11
    bounded = combine(parts, Choice(3, most=8))  # (4 * 8 * 8) ** (1 / 3)
    assert bounded.num_classes == 6


def test_a_part_weighs_the_odds_that_it_finds_a_known_crop() -> None:
    sharp, vague = _trials([4] * 3, 0.5), _trials([16] * 3, 0.5)
    vague = [replace(t, recall=tuple(value / 3 for value in t.recall)) for t in vague]
    odds = [max(score) / (1 - max(score)) for score in (_scores(sharp), _scores(vague))]
    middle = np.exp(np.average(np.log([4, 16]), weights=odds))
    assert 4 <= middle < 6
    assert combine([sharp, vague], Choice(3)).num_classes == round(middle)


def _scores(trials: list[Trial]) -> list[float]:
    return Grid(trials).score().tolist()


def test_classes_that_disagree_widen_the_interval() -> None:
    sharp = choose(_trials([8, 8, 8], 0.3), Choice(2))
    torn = []
    for trial in _trials([8, 8, 8], 0.3):
        at = [max(0.0, 0.9 - 0.3 * abs(float(np.log(trial.num_classes / p)))) for p in (4, 8, 16)]
        torn.append(Trial(trial.draw, trial.parameter, trial.num_classes, tuple(at), *_rest(trial)))
    low, high = choose(torn, Choice(2)).interval
    assert low < sharp.interval[0]
    assert high > sharp.interval[1]


def _rest(trial: Trial) -> tuple[tuple[float, ...], float, float]:
    return trial.weight, trial.silhouette, trial.inertia


def test_there_are_at_least_the_known_classes() -> None:
    found = choose(_trials([4, 4], 0.5), Choice(10))
    assert found.num_classes == 10
    assert found.interval[0] == 10


def test_classes_that_are_not_found_again_make_it_a_guess() -> None:
    found = choose(_trials([8, 8], 0.1, best=0.3), Choice(3))
    assert "take the count as a guess" in str(found.warning)


def test_the_largest_count_asks_for_more() -> None:
    found = choose(_trials([32, 32], 0.5), Choice(3, most=30))
    assert "raise max_classes" in str(found.warning)


def test_a_class_of_no_weight_has_no_say() -> None:
    trials = _trials([8, 8], 0.5)
    spoiled = [
        Trial(t.draw, t.parameter, t.num_classes, (*t.recall[:2], float(t.num_classes == 2)),
              (1.0, 1.0, 0.0), t.silhouette, t.inertia)
        for t in trials
    ]  # fmt: skip
    assert choose(spoiled, Choice(3)).num_classes == choose(trials, Choice(3)).num_classes
    np.testing.assert_allclose(Grid(spoiled).score(), Grid(trials).score())


@examples(60)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=12), st.integers(0, 4))
def test_the_plateau_is_the_run_around_the_best(values: list[int], tie: int) -> None:
    found = plateau(np.array(values, dtype=float), float(tie)).tolist()
    assert found == list(range(found[0], found[-1] + 1))
    assert int(np.argmax(values)) in found
    assert all(values[n] >= max(values) - tie for n in found)
    for edge in (found[0] - 1, found[-1] + 1):
        assert not 0 <= edge < len(values) or values[edge] < max(values) - tie


@examples(60)
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 2)), min_size=1, max_size=30),
    st.booleans(),
)
def test_recall_equals_brute_force(pairs: list[tuple[int, int]], balanced: bool) -> None:
    cluster, label = (np.array(column) for column in zip(*pairs, strict=True))
    size = np.bincount(label[label >= 0], minlength=3)
    best = 0.0
    for chosen in permutations(range(5), 3):
        right = [((cluster == chosen[c]) & (label == c)).sum() for c in range(3)]
        weight = 1 / np.maximum(size, 1) if balanced else np.ones(3)
        best = max(best, float((right * weight).sum()))
    found = np.array(recalls(cluster, label, 3, balanced))
    assert float((found * (1 if balanced else size)).sum()) == pytest.approx(best)


def test_hidden_classes_judge_fully_and_seen_ones_a_little() -> None:
    label = np.array([0, 0, 1, 3, -1])
    assert judges(label, 4) == (1, 1, 0, 1)
    assert judges(label, 4, hidden=[1], seen=0.1) == (0.1, 1, 0, 0.1)


@examples(60)
@given(st.integers(2, 40), st.integers(0, 100))
def test_every_known_class_is_hidden_once_in_five_draws(num: int, seed: int) -> None:
    classes = list(range(num))
    folds = [hidden_classes(classes, draw, seed) for draw in range(min(5, num))]
    assert sorted(c for fold in folds for c in fold) == classes
    assert all(0 < len(fold) < num for fold in folds)
    assert hidden_classes([3], 0, seed) == []
