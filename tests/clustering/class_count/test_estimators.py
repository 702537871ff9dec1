"""Every estimator on points whose number of classes is known."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
from blobs import blobs, count
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.clustering.class_count.choose import Choice, choose
from gcdis_ray.clustering.class_count.density import Density
from gcdis_ray.clustering.class_count.hidden_classes import HiddenClasses
from gcdis_ray.clustering.class_count.labeled_accuracy import CountGrid, LabeledAccuracy, log_grid
from gcdis_ray.clustering.class_count.mixture import Mixture
from gcdis_ray.clustering.class_count.points import CountSettings, Points, prepare
from gcdis_ray.clustering.class_count.trials import Estimator, hidden_classes, run_all

METHODS = ("mixture", "labeled_accuracy", "holdout", "density")
LONG_TAIL = [120, 20, 60, 17, 40, 15, 30, 13, 24, 12]  # of 5 known, 5 novel classes


def _estimator(method: str, num_known: int, seed: int = 0) -> Estimator:
    grid = CountGrid(max(2, num_known), 25, 12, 2)
    return {
        "mixture": Mixture(num_known, 2, seed, 80),
        "labeled_accuracy": LabeledAccuracy(num_known, grid, CountSettings(), seed),
        "holdout": HiddenClasses(num_known, grid, CountSettings(), seed),
        "density": Density(num_known, 2, largest_size=40),
    }[method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("num_classes", "num_known"), [(6, 3), (12, 6)])
def test_separate_classes_are_counted(method: str, num_classes: int, num_known: int) -> None:
    points = blobs([40] * num_classes, num_known, 0.4, seed=num_classes)
    found = count(_estimator(method, num_known), points, num_known)
    low, high = found.interval
    assert found.num_classes == pytest.approx(num_classes, rel=0.2)
    assert num_known <= low <= found.num_classes <= high
    numbers = [row["num_classes"] for row in found.curve]
    assert numbers == sorted(set(numbers))
    assert all(
        {"score", "accuracy", "accuracy_sd", "silhouette", "inertia"} <= row.keys()
        for row in found.curve
    )


def test_the_mixture_counts_a_long_tail() -> None:
    points = blobs(LONG_TAIL, 5, 0.4, seed=1)
    assert count(_estimator("mixture", 5), points, 5).num_classes == pytest.approx(10, abs=1)


@pytest.mark.parametrize("num_known", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_one_or_two_known_classes_are_enough_to_answer(method: str, num_known: int) -> None:
    points = blobs([30] * 4, num_known, 0.3, seed=5)
    found = count(_estimator(method, num_known), points, num_known)
    assert num_known <= found.num_classes <= 25


@pytest.mark.parametrize("num_known", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_more_candidates_than_points_are_tried_as_far_as_there_are_points(
    method: str, num_known: int
) -> None:
    """4 to 13 points, of which 1 to 4 keep the label of their class, for up to 25 clusters."""
    for size in (1, 2, 3):
        points = blobs([size] * (num_known + 1), num_known, 0.3, seed=size)
        found = count(_estimator(method, num_known), points, num_known)
        assert num_known <= found.num_classes <= len(points.labels_N)


@pytest.mark.parametrize("method", METHODS)
def test_equal_arguments_give_equal_counts(method: str) -> None:
    points = blobs([30] * 6, 3, 0.5, seed=2)
    assert count(_estimator(method, 3), points, 3) == count(_estimator(method, 3), points, 3)


@pytest.mark.parametrize("method", METHODS)
def test_names_of_known_classes_carry_nothing(method: str) -> None:
    """Unlabeled points are -1, whatever they are; so all that labels say is which are alike."""
    drawn = prepare(*blobs([30] * 6, 3, 0.3, seed=3), CountSettings(dims=16), seed=0)
    label_N = drawn.labels_N
    renamed = torch.where(label_N >= 0, (label_N + 1) % 3, label_N)
    assert set(label_N.tolist()) == {-1, 0, 1, 2}
    estimator = _estimator(method, 3)
    counts = [
        choose(run_all(estimator, lambda jobs, p=p: [estimator.run(j, p) for j in jobs]), Choice(3))
        for p in (drawn, Points(drawn.points_ND, renamed))
    ]
    assert counts[0].num_classes == pytest.approx(counts[1].num_classes, abs=1)


@pytest.mark.parametrize("method", ["mixture", "holdout"])
def test_what_is_hidden_is_hidden(method: str) -> None:
    """Labels of a hidden class judge the clusters and do not shape them: without them, clusters
    are the same."""
    drawn = prepare(*blobs([30] * 6, 3, 0.4, seed=3), CountSettings(dims=16), seed=0)
    (hidden,) = hidden_classes([0, 1, 2], 0, 0)
    others = torch.where(drawn.labels_N == hidden, -1, drawn.labels_N)
    estimator = _estimator(method, 3)
    job = estimator.jobs([])[0]
    assert job.draw == 0
    one = estimator.run(job, drawn)
    module = {"mixture": "mixture", "holdout": "hidden_classes"}[method]
    with mock.patch(f"gcdis_ray.clustering.class_count.{module}.hidden_classes") as fold:
        fold.return_value = [hidden]
        two = estimator.run(job, Points(drawn.points_ND, others))
    assert [(t.num_classes, t.silhouette, t.inertia) for t in one] == [
        (t.num_classes, t.silhouette, t.inertia) for t in two
    ]
    assert [t.recall[hidden] for t in two] == [0] * len(two)
    assert max(t.recall[hidden] for t in one) > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_jobs_are_independent_of_their_order(method: str) -> None:
    drawn = prepare(*blobs([30] * 6, 3, 0.4, seed=4), CountSettings(dims=16), seed=0)
    estimator = _estimator(method, 3)
    jobs = estimator.jobs([])
    forth = [estimator.run(job, drawn) for job in jobs]
    back = [estimator.run(job, drawn) for job in reversed(jobs)]
    assert [[dataclasses.astuple(t)[:3] for t in part] for part in forth] == [
        [dataclasses.astuple(t)[:3] for t in part] for part in reversed(back)
    ]


def test_the_second_grid_lies_around_the_best_of_the_first() -> None:
    estimator = _estimator("labeled_accuracy", 3)
    drawn = prepare(*blobs([30] * 8, 3, 0.3, seed=6), CountSettings(dims=16), seed=0)
    first = [t for job in estimator.jobs([]) for t in estimator.run(job, drawn)]
    second = {k for job in estimator.jobs(first) for k in job.parameters}
    tried = {t.parameter for t in first}
    assert len(tried) <= 12
    assert second
    assert not second & tried
    best = max(first, key=lambda t: np.nanmean(t.recall)).parameter
    assert min(tried) <= min(second)
    assert max(second) <= max(tried)
    assert min(abs(np.log(k / best)) for k in second) < 0.3


@examples(100)
@given(st.integers(1, 50), st.integers(0, 3000), st.integers(3, 40))
def test_log_grid_spans_its_range(low: int, more: int, num: int) -> None:
    grid = log_grid(low, low + more, num)
    assert grid == sorted(set(grid))
    assert grid[0] == low
    assert grid[-1] == low + more
    assert len(grid) <= num
