"""k-means against slow, obvious versions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from gcdis_ray.clustering.kmeans import kmeans, means, nearest
from gcdis_ray.errors import ConfigError, GcdisError


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _blobs(
    num: int, per_blob: int, dims: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = _generator(seed)
    centers = 20 * torch.randn(num, dims, generator=generator)
    label = torch.arange(num).repeat_interleave(per_blob)
    return centers[label] + torch.randn(len(label), dims, generator=generator), label


def _slow_nearest(points: torch.Tensor, centers: torch.Tensor) -> tuple[list[int], list[float]]:
    index, distance = [], []
    for point in points.double():
        values = [float(((point - center) ** 2).sum()) for center in centers.double()]
        index.append(int(np.argmin(values)))
        distance.append(min(values))
    return index, distance


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_nearest_equals_a_double_loop(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr("gcdis_ray.clustering.kmeans._CHUNK", 50)
    for seed in range(5):
        points = torch.randn(61, 3, generator=_generator(seed))
        centers = torch.randn(7, 3, generator=_generator(seed + 100))
        index, distance = nearest(points, centers, backend)
        want = _slow_nearest(points, centers)
        assert index.tolist() == want[0]
        assert distance.tolist() == pytest.approx(want[1], abs=1e-4)


def test_means_of_empty_clusters_are_zero() -> None:
    center, size = means(torch.tensor([[2.0], [4.0]]), torch.tensor([1, 1]), 3)
    assert center.tolist() == [[0.0], [3.0], [0.0]]
    assert size.tolist() == [0, 2, 0]


@pytest.mark.parametrize("seed", range(5))
def test_plain_result_is_a_fixed_point_of_lloyds_iteration(seed: int) -> None:
    points = torch.randn(200, 3, generator=_generator(seed)).double()
    found = kmeans(points, 6, _generator(seed), tolerance=0, max_iterations=500)
    assert found.cluster_N.tolist() == _slow_nearest(points, found.centers_KD)[0]
    for k in range(6):
        own = points[found.cluster_N == k]
        torch.testing.assert_close(found.centers_KD[k], own.mean(0))
    assert found.inertia == pytest.approx(sum(_slow_nearest(points, found.centers_KD)[1]))


def test_far_blobs_are_found_and_more_starts_are_never_worse() -> None:
    points, label = _blobs(8, 25)
    found = kmeans(points, 8, _generator(), n_init=3)
    pairs = set(zip(found.cluster_N.tolist(), label.tolist(), strict=True))
    assert len(pairs) == 8
    noise = torch.randn(300, 5, generator=_generator(1))
    few, many = (kmeans(noise, 12, _generator(2), n_init=n).inertia for n in (1, 6))
    assert many <= few


@pytest.mark.parametrize("seed", range(4))
def test_semi_supervised_equals_a_slow_version_from_its_own_result(seed: int) -> None:
    points, label = _blobs(6, 20, dims=2, seed=seed)
    points = points / 6  # blobs that touch
    given = torch.where((label < 3) & (torch.arange(len(label)) % 2 == 0), label, torch.tensor(-1))
    found = kmeans(points, 6, _generator(seed), labels_N=given, tolerance=0, max_iterations=500)
    index, _ = _slow_nearest(points, found.centers_KD)
    for n in range(len(points)):
        want = int(given[n]) if given[n] >= 0 else index[n]
        assert int(found.cluster_N[n]) == want
    for k in range(6):
        torch.testing.assert_close(found.centers_KD[k], points[found.cluster_N == k].mean(0))


def test_labels_pull_clusters_where_geometry_alone_would_not() -> None:
    points = torch.tensor([[0.0], [0.1], [0.2], [10.0], [10.1], [10.2]])
    given = torch.tensor([0, -1, 1, 0, -1, 1])
    found = kmeans(points, 2, _generator(), labels_N=given)
    assert found.cluster_N[given >= 0].tolist() == [0, 1, 0, 1]


def test_no_cluster_is_empty_even_with_a_bad_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcdis_ray.clustering import kmeans as module

    points, _ = _blobs(5, 10)
    same = points[:1].repeat(5, 1)
    monkeypatch.setattr(module, "_start", lambda *args: same)
    found = kmeans(points, 5, _generator())
    assert torch.bincount(found.cluster_N, minlength=5).min() > 0
    again = kmeans(points, 5, _generator(9))
    assert torch.equal(found.cluster_N, again.cluster_N)  # re-seeding draws nothing


def test_duplicate_points_do_not_break_seeding() -> None:
    found = kmeans(torch.ones(10, 3), 4, _generator())
    assert found.inertia == 0
    assert torch.isfinite(found.centers_KD[found.cluster_N]).all()


def test_equal_generators_give_equal_bits() -> None:
    points = torch.randn(400, 8, generator=_generator(3))
    one, two = (kmeans(points, 9, _generator(5), n_init=2) for _ in range(2))
    assert torch.equal(one.centers_KD, two.centers_KD)
    assert not torch.equal(one.centers_KD, kmeans(points, 9, _generator(6)).centers_KD)


def test_about_as_good_as_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    points = torch.randn(600, 10, generator=_generator(7))
    ours = kmeans(points, 15, _generator(), n_init=5).inertia
    theirs = KMeans(15, n_init=5, random_state=0).fit(points.numpy()).inertia_
    assert ours <= 1.02 * float(theirs)


def test_impossible_wishes_are_errors() -> None:
    points = torch.zeros(3, 2)
    with pytest.raises(GcdisError, match="4 clusters of 3 points"):
        kmeans(points, 4, _generator())
    with pytest.raises(GcdisError, match="2 clusters for 3 labeled classes"):
        kmeans(points, 2, _generator(), labels_N=torch.tensor([0, 1, 2]))


def test_missing_faiss_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'gcdis-ray\[cpu\]'"):
        nearest(torch.zeros(2, 2), torch.zeros(1, 2), "faiss")
