"""The mathematics of the mixture against slow, obvious versions."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from gcdis_ray.clustering.class_count.mixture import (
    Mixture,
    Space,
    best_clusters,
    compact,
    discriminant_space,
    evidence,
    merge,
    sums,
)
from gcdis_ray.clustering.kmeans import Clustering


def _log_joint(points_ND: np.ndarray, between_D: np.ndarray, noise: float) -> float:
    """Density of points of one class, its center integrated out: one dimension after another,
    points are jointly normal with covariance noise * I + between * 1."""
    num = len(points_ND)
    return sum(
        float(
            multivariate_normal(np.zeros(num), noise * np.eye(num) + between * np.ones((num, num)))
            .logpdf(points_ND[:, d])
        )
        for d, between in enumerate(between_D)
    )  # fmt: skip


def _space(seed: int, num: int, dims: int = 3, spread: float = 4.0) -> tuple[Space, np.ndarray]:
    """Points of up to four classes, and which class each is of."""
    rng = np.random.default_rng(seed)
    between = rng.uniform(0.5, spread, dims)
    center = rng.normal(size=(4, dims)) * np.sqrt(between)
    label = rng.integers(4, size=num)
    return Space(center[label] + rng.normal(size=(num, dims)), between), label


@examples(40)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 3.0]))
def test_evidence_is_the_integral_over_the_center(seed: int, noise: float) -> None:
    """Two partitions of the same points differ by what their joint densities differ by."""
    space, _ = _space(seed, 8)
    one, two = np.zeros(8, dtype=np.int64), np.array([0, 0, 0, 1, 1, 2, 2, 2])

    def slow(cluster_N: np.ndarray) -> float:
        return sum(
            _log_joint(space.points_ND[cluster_N == k], space.between_D, noise)
            + math.lgamma(int((cluster_N == k).sum()))
            for k in np.unique(cluster_N)
        )

    def fast(cluster_N: np.ndarray) -> float:
        return float(evidence(*sums(space.points_ND, cluster_N), space.between_D, noise).sum())

    assert fast(two) - fast(one) == pytest.approx(slow(two) - slow(one), abs=1e-8)


@examples(40)
@given(st.integers(0, 10_000))
def test_a_point_goes_where_it_is_most_probable(seed: int) -> None:
    space, label = _space(seed, 12)
    cluster = compact(label)
    got = best_clusters(space, cluster, 1.5)
    for point, chosen in zip(space.points_ND, got, strict=True):
        values = []
        for k in range(cluster.max() + 1):
            inside = space.points_ND[cluster == k]
            together = np.concatenate([inside, point[None]])
            predictive = _log_joint(together, space.between_D, 1.5) - _log_joint(
                inside, space.between_D, 1.5
            )
            values.append(predictive + math.log(len(inside)))
        assert values[chosen] == pytest.approx(max(values))


@examples(25)
@given(st.integers(0, 10_000))
def test_merging_equals_trying_all_pairs(seed: int) -> None:
    """The first pass of merges, before points move: with ever lower noise points stay."""
    from gcdis_ray.clustering.class_count.mixture import _agglomerate

    space, _ = _space(seed, 14)
    cluster = np.arange(14) // 2

    def total(cluster_N: np.ndarray) -> float:
        return float(evidence(*sums(space.points_ND, cluster_N), space.between_D, 1.0).sum())

    slow = cluster.copy()
    while True:
        options = []
        for a in range(slow.max() + 1):
            for b in range(a + 1, slow.max() + 1):
                options.append((total(compact(np.where(slow == b, a, slow))), a, b))
        best = max(options, default=None)
        if best is None or best[0] <= total(slow):
            break
        slow = compact(np.where(slow == best[2], best[1], slow))
    fast = _agglomerate(space, cluster, 1.0)
    same = fast[:, None] == fast[None]
    assert np.array_equal(same, slow[:, None] == slow[None])


def test_small_clusters_are_bounded_by_memory() -> None:
    points = np.random.default_rng(0).normal(size=(90, 4))
    for most, start in ((10, 10), (1_000_000, 30)):
        assert Mixture(1, 1, 0, most)._small_clusters(points, 0).max() + 1 == start
    with mock.patch("gcdis_ray.clustering.class_count.mixture.MAX_CLUSTERS", 20):
        assert Mixture(1, 1, 0, 1_000_000)._small_clusters(points, 0).max() + 1 == 20


def test_small_clusters_are_found_where_the_job_runs() -> None:
    points, seen = np.random.default_rng(0).normal(size=(30, 4)), []

    def stand_in(points_ND: torch.Tensor, num: int, *rest: object, **options: object) -> Clustering:
        seen.append(points_ND.device.type)
        return Clustering(points_ND[:num], torch.arange(len(points_ND)) % num, 0.0, 1)

    with mock.patch("gcdis_ray.clustering.class_count.mixture.kmeans", stand_in):
        mixture = Mixture(1, 1, 0, 10)
        for device in ("cpu", "meta"):
            assert mixture._small_clusters(points, 0, device).max() == 9
    assert seen == ["cpu", "meta"]


def test_a_gaussian_is_not_divided_by_its_size_nor_a_rare_class_swallowed() -> None:
    rng = np.random.default_rng(0)
    large, rare = rng.normal(size=(2000, 4)), rng.normal(size=(6, 4)) + 5
    space = Space(np.concatenate([large, rare]), np.full(4, 9.0))
    start = np.concatenate([np.arange(2000) % 40, np.full(6, 40)])
    sizes = np.bincount(merge(space, start, 1.0))
    assert sorted(sizes) == [6, 2000]


def test_in_the_discriminant_space_classes_are_round() -> None:
    rng = np.random.default_rng(1)
    shape = np.array([5.0, 0.2, 1.0, 1.0, 1.0])
    center = np.zeros((30, 5))
    center[:, :2] = rng.normal(size=(30, 2)) * [20, 1]  # classes differ in two directions only
    label = np.repeat(np.arange(30), 60)
    points = center[label] + rng.normal(size=(len(label), 5)) * shape
    space = discriminant_space(points, np.where(label < 20, label, -1))
    assert space.points_ND.shape == (1800, 2)
    inside = np.concatenate(
        [space.points_ND[label == c] - space.points_ND[label == c].mean(0) for c in range(30)]
    )
    np.testing.assert_allclose(np.cov(inside.T), np.eye(2), atol=0.25)  # shrunk towards a ball
    assert (space.between_D > 5).all()
