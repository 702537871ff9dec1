"""What is drawn and measured: one clustering into K clusters."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import blobs
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.clustering.class_count.measures import (
    labeled_accuracy,
    measure,
    rows_at_a_time,
    silhouette,
)
from gcdis_ray.clustering.class_count.points import (
    CountSettings,
    draw,
    place,
    prepare,
)
from gcdis_ray.errors import DataError


@pytest.mark.parametrize("labels", [torch.full((20,), -1), torch.zeros(20, dtype=torch.int64)])
def test_both_kinds_of_points_are_needed(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="cannot be estimated without"):
        prepare(torch.randn(20, 3), labels, CountSettings(), seed=0)


def test_a_draw_is_as_large_as_asked_and_its_seed_decides() -> None:
    labels = torch.tensor([0] * 30 + [1] * 5 + [-1] * 50)
    settings = CountSettings(max_labeled_per_class=10, max_unlabeled=20)
    rows = draw(labels, settings, seed=1)
    assert torch.bincount(labels[rows] + 1).tolist() == [20, 10, 5]
    assert torch.equal(rows, draw(labels, settings, seed=1))
    assert not torch.equal(rows, draw(labels, settings, seed=2))


@pytest.mark.parametrize(
    ("num_known", "max_unlabeled", "drawn"),
    [(5, None, 10_000), (400, None, 12_000), (400, 500, 500), (400, 20_000, 20_000)],
)
def test_many_known_classes_draw_more_unlabeled_points(
    num_known: int, max_unlabeled: int | None, drawn: int
) -> None:
    labels = torch.cat([torch.arange(num_known), torch.full((30_000,), -1)])
    rows = draw(labels, CountSettings(max_unlabeled=max_unlabeled), seed=0)
    assert len(rows) == drawn + num_known


@examples(60)
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


def test_silhouette_in_blocks_is_that_of_all_points() -> None:
    """With 3,000 clusters a block holds fewer points than there are."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(9_000, 4, generator=generator)
    centers = points[:3_000]
    assert rows_at_a_time(len(centers)) < len(points)
    owner = torch.arange(9_000) % 3_000
    distance = torch.cdist(points, centers)
    own = distance.gather(1, owner[:, None])[:, 0]
    other = distance.scatter(1, owner[:, None], torch.inf).min(dim=1).values
    want = ((other - own) / torch.maximum(own, other)).mean()
    assert silhouette(points, centers, owner) == pytest.approx(float(want), abs=1e-5)


def test_silhouette_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0]])
    centers = torch.tensor([[0.5], [10.0]])
    cluster = torch.tensor([0, 0, 1])
    want = np.mean([(10 - 0.5) / 10, (9 - 0.5) / 9, 1.0])
    assert silhouette(points, centers, cluster) == pytest.approx(want)
    assert silhouette(points, centers[:1], torch.zeros(3, dtype=torch.int64)) == 0


def test_principal_components_keep_the_directions_of_most_variance() -> None:
    points = torch.randn(500, 6) * torch.tensor([5.0, 0.1, 4.0, 0.1, 0.1, 0.1])
    kept = place(points, CountSettings(dims=2, space="principal"))
    want = F.normalize((points - points.mean(0))[:, [0, 2]], dim=1)
    torch.testing.assert_close(kept @ kept.T, want @ want.T, atol=0.1, rtol=0)
    assert place(points, CountSettings(dims=100, space="principal")).shape == (500, 6)


def test_the_right_number_of_clusters_measures_best() -> None:
    points, labels = prepare(*blobs([30] * 6, 3, 0.4, seed=7), CountSettings(dims=16), seed=0)
    few, right, many = (measure(points, labels, k, CountSettings(), seed=1) for k in (3, 6, 15))
    assert right == measure(points, labels, 6, CountSettings(), seed=1)
    assert right.balanced_accuracy > max(few.balanced_accuracy, many.balanced_accuracy)
    assert right.silhouette > max(few.silhouette, many.silhouette)
    assert few.inertia > right.inertia > many.inertia
