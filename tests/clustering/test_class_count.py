"""The estimator of the number of classes, on points whose number of classes is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gcdis_ray.clustering.class_count.labeled_accuracy import Search, estimate, log_grid
from gcdis_ray.clustering.class_count.measures import labeled_accuracy, measure, silhouette
from gcdis_ray.clustering.class_count.points import Settings, prepare, principal_components
from gcdis_ray.errors import DataError


def _points(
    num_classes: int, num_known: int, per_class: list[int], spread: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors around random directions; half of each known class is labeled."""
    generator = torch.Generator().manual_seed(seed)
    center = F.normalize(torch.randn(num_classes, 24, generator=generator), dim=1)
    label = torch.cat([torch.full((n,), c) for c, n in enumerate(per_class)])
    noise = spread * torch.randn(len(label), 24, generator=generator) / 24**0.5
    given = torch.where((label < num_known) & (torch.arange(len(label)) % 2 == 0), label, -1)
    return F.normalize(center[label] + noise, dim=1), given


@pytest.mark.parametrize(
    ("num_classes", "num_known"), [(3, 2), (6, 3), (10, 5), (10, 8), (20, 6), (30, 10)]
)
def test_separate_classes_are_counted(num_classes: int, num_known: int) -> None:
    points, given = _points(num_classes, num_known, [40] * num_classes, 0.4, seed=num_classes)
    search = Search(max_classes=max(25, 5 * num_known), num_seeds=2)
    found = estimate(points, given, search, seed=0)
    assert 0.9 * num_classes <= found.num_classes <= max(num_classes + 1, 1.2 * num_classes)
    low, high = found.interval
    assert low <= found.num_classes <= high
    assert [row["num_classes"] for row in found.curve] == sorted(
        {row["num_classes"] for row in found.curve}
    )


def test_a_long_tail_costs_little() -> None:
    sizes = [round(240 * 0.72**c) + 8 for c in (0, 5, 1, 6, 2, 7, 3, 8, 4, 9)]
    points, given = _points(10, 5, sizes, 0.4, seed=1)
    found = estimate(points, given, Search(max_classes=25), seed=0)
    assert 8 <= found.num_classes <= 13


def test_noise_is_called_a_guess() -> None:
    points, given = _points(1, 1, [400], 5.0, seed=2)
    given = torch.where(given >= 0, torch.arange(400) // 2 % 4, given)
    found = estimate(points, given, Search(max_classes=25), seed=0)
    assert "take the count as a guess" in str(found.warning)


def test_a_search_that_ends_too_early_says_so() -> None:
    points, given = _points(12, 6, [30] * 12, 0.3, seed=3)
    found = estimate(points, given, Search(max_classes=8), seed=0)
    assert found.num_classes == 8
    assert "raise max_classes" in str(found.warning)


def test_no_label_of_an_unlabeled_point_and_no_chance_enters() -> None:
    points, given = _points(6, 3, [30] * 6, 0.4, seed=4)
    search = Search(max_classes=15, num_seeds=2)
    one, two = (estimate(points, given, search, seed=5) for _ in range(2))
    assert one == two
    swapped = torch.where(given >= 0, 2 - given, given)  # names of classes carry nothing
    other = estimate(points, swapped, search, seed=5)
    assert other.num_classes == pytest.approx(one.num_classes, abs=1)


@pytest.mark.parametrize("labels", [torch.full((20,), -1), torch.zeros(20, dtype=torch.int64)])
def test_both_kinds_of_points_are_needed(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="cannot be estimated without"):
        estimate(torch.randn(20, 3), labels, Search(max_classes=5), seed=0)


def test_few_points_are_enough_to_answer() -> None:
    points, given = _points(3, 2, [4, 4, 4], 0.1, seed=6)
    assert 2 <= estimate(points, given, Search(max_classes=50), seed=0).num_classes <= 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 3])), min_size=1, max_size=30),
    st.booleans(),
)
def test_labeled_accuracy_equals_brute_force(pairs: list[tuple[int, int]], balanced: bool) -> None:
    cluster = torch.tensor([k for k, _ in pairs])
    label = torch.tensor([c for _, c in pairs])
    classes = sorted({c for _, c in pairs})
    best = 0.0
    for chosen in permutations(range(5), len(classes)):
        to_class = dict(zip(chosen, classes, strict=True))
        right = np.array([to_class.get(k) == c for k, c in pairs])
        shares = [right[label.numpy() == c].mean() for c in classes]
        best = max(best, float(np.mean(shares) if balanced else right.mean()))
    assert labeled_accuracy(cluster, label, balanced) == pytest.approx(best)


def test_silhouette_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0]])
    centers = torch.tensor([[0.5], [10.0]])
    cluster = torch.tensor([0, 0, 1])
    want = np.mean([(10 - 0.5) / 10, (9 - 0.5) / 9, 1.0])
    assert silhouette(points, centers, cluster) == pytest.approx(want)
    assert silhouette(points, centers[:1], torch.zeros(3, dtype=torch.int64)) == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(0, 3000), st.integers(3, 40))
def test_log_grid_spans_its_range(low: int, more: int, num: int) -> None:
    grid = log_grid(low, low + more, num)
    assert grid == sorted(set(grid))
    assert grid[0] == low
    assert grid[-1] == low + more
    assert len(grid) <= num


def test_principal_components_keep_the_directions_of_most_variance() -> None:
    points = torch.randn(500, 6) * torch.tensor([5.0, 0.1, 4.0, 0.1, 0.1, 0.1])
    kept = principal_components(points, 2)
    want = F.normalize((points - points.mean(0))[:, [0, 2]], dim=1)
    torch.testing.assert_close(kept @ kept.T, want @ want.T, atol=0.1, rtol=0)
    assert principal_components(points, 100).shape == (500, 6)


def test_the_right_number_of_clusters_measures_best() -> None:
    embeddings, given = _points(6, 3, [30] * 6, 0.4, seed=7)
    points, labels = prepare(embeddings, given, Settings(dims=16), seed=0)
    few, right, many = (measure(points, labels, k, Settings(), seed=1) for k in (3, 6, 15))
    assert right == measure(points, labels, 6, Settings(), seed=1)
    assert right.balanced_accuracy > max(few.balanced_accuracy, many.balanced_accuracy)
    assert right.silhouette > max(few.silhouette, many.silhouette)
    assert few.inertia > right.inertia > many.inertia
