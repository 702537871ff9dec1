"""k-means from nested starts: the starts, and what is made of them."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from gcdis_ray.clustering.class_count import nested_kmeans as module
from gcdis_ray.clustering.class_count.nested_kmeans import nested_kmeans, start_centers
from gcdis_ray.clustering.class_count.points import CountSettings
from gcdis_ray.clustering.kmeans import kmeans


@pytest.fixture
def points() -> Tensor:
    return torch.randn(60, 4, generator=Generator().manual_seed(0))


def _starts(points: Tensor, num: int, given: Tensor | None = None) -> Tensor:
    return start_centers(points, num, Generator().manual_seed(3), given)


def test_a_short_start_begins_a_long_one(points: Tensor) -> None:
    given = points[:2] + 1
    assert torch.equal(_starts(points, 5), _starts(points, 20)[:5])
    assert torch.equal(_starts(points, 5, given), _starts(points, 20, given)[:5])
    assert torch.equal(_starts(points, 5, given)[:2], given)


def test_every_point_starts_one_cluster_before_any_starts_two(points: Tensor) -> None:
    assert torch.equal(_starts(points, 60).unique(dim=0), points.unique(dim=0))
    assert torch.equal(_starts(points[:1].expand(5, 4), 5), points[:1].expand(5, 4))


def test_candidates_are_drawn_in_proportion_to_squared_distance(monkeypatch) -> None:
    monkeypatch.setattr(module, "_CANDIDATES", 1)
    line, given = torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(1, 1)
    generator = Generator().manual_seed(0)
    drawn = [float(start_centers(line, 2, generator, given)[1]) for _ in range(500)]
    assert 0 not in drawn
    assert drawn.count(2) / 500 == pytest.approx(4 / 5, abs=0.06)


def test_the_best_of_the_candidates_is_taken(monkeypatch) -> None:
    """All points are candidates: the one that leaves the least squared distance."""
    monkeypatch.setattr(module, "_CANDIDATES", 7)
    line = torch.tensor([[0.0], [0.1], [5.0], [5.1], [5.2], [9.0], [9.1]])
    assert float(start_centers(line, 1, Generator().manual_seed(0))[0]) == pytest.approx(
        5.0
    )  # the mean is 4.79


def test_rounding_does_not_change_the_draws(points: Tensor) -> None:
    noise = 1 + 1e-6 * torch.randn(points.shape, generator=Generator().manual_seed(9))
    torch.testing.assert_close(_starts(points * noise, 40), _starts(points, 40), atol=1e-4, rtol=0)


@pytest.mark.parametrize("labeled", [False, True])
def test_each_number_is_a_kmeans_from_the_best_start(points: Tensor, labeled: bool) -> None:
    labels = torch.full((60,), -1)
    labels[:9] = torch.arange(9) % 3
    told = labels if labeled else None
    numbers = [4, 12, 7]
    alone = list(nested_kmeans(points, numbers, CountSettings(n_init=1), 5, 2, told))
    best = list(nested_kmeans(points, numbers, CountSettings(n_init=3), 5, 2, told))
    for num, one, found in zip(numbers, alone, best, strict=True):
        assert found.inertia <= one.inertia
        assert len(found.centers_KD) == num
        [again] = nested_kmeans(points, [num], CountSettings(n_init=3), 5, 2, told)
        assert torch.equal(again.cluster_N, found.cluster_N)
        if labeled:
            assert torch.equal(found.cluster_N[:9], labels[:9])
    center = points.mean(dim=0, keepdim=True)
    [whole] = nested_kmeans(points, [1], CountSettings(), 0, 0)
    assert whole.inertia == pytest.approx(
        kmeans(points, 1, Generator(), start_KD=center).inertia, rel=1e-5
    )
