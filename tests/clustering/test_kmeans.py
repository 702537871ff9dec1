"""k-means against slow, obvious versions."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gcdis_ray.clustering import kmeans as kmeans_module
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
    monkeypatch.setattr("gcdis_ray.clustering.kmeans._BLOCK", 50)
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


def test_no_cluster_is_empty_even_with_a_bad_start() -> None:
    points, _ = _blobs(5, 10)
    same = points[:1].repeat(5, 1)
    found = kmeans(points, 5, _generator(), start_KD=same)
    assert torch.bincount(found.cluster_N, minlength=5).min() > 0
    again = kmeans(points, 5, _generator(9), start_KD=same)
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


@pytest.mark.parametrize(
    ("labels", "num_clusters", "more", "message"),
    [
        (None, 4, {}, "4 clusters of 3 points"),
        ([0, 1, 2], 2, {}, "2 clusters for 3 labeled classes"),
        ([0, 0, 2], 3, {}, "no labeled point of class 1"),
        ([0, 0, -1], 3, {}, "1 unlabeled points for 2 further clusters"),
        (None, 2, {"start_KD": torch.zeros(3, 2)}, r"start_KD is \(3, 2\), not \(2, 2\)"),
        (None, 2, {"n_init": 0}, "n_init 0"),
        (None, 2, {"max_iterations": 0}, "max_iterations 0"),
    ],
)
def test_impossible_wishes_are_errors(labels, num_clusters, more, message) -> None:
    given = None if labels is None else torch.tensor(labels)
    with pytest.raises(GcdisError, match=message):
        kmeans(torch.zeros(3, 2), num_clusters, _generator(), labels_N=given, **more)


def test_missing_faiss_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'gcdis-ray\[cpu\]'"):
        nearest(torch.zeros(2, 2), torch.zeros(1, 2), "faiss")


# ------------------------------------------------------------ against a slow version, step by step


def _slow_kmeans(
    points: torch.Tensor, labels: list[int], start: torch.Tensor, iterations: int
) -> tuple[np.ndarray, list[int], float]:
    """Centers, clusters, inertia after some iterations, one point at a time in float64."""
    xs, centers = points.double().numpy(), start.double().numpy().copy()
    clusters: list[int] = []
    for _ in range(iterations):
        distance = np.array([[((x - c) ** 2).sum() for c in centers] for x in xs])
        clusters = [
            label if label >= 0 else int(np.argmin(row))
            for label, row in zip(labels, distance, strict=True)
        ]
        own = distance[np.arange(len(xs)), clusters]
        for k in range(len(centers)):
            if k in clusters:
                continue
            free = [n for n, c in enumerate(clusters) if labels[n] < 0 and clusters.count(c) > 1]
            free = [n for n in free if own[n] > 0]
            if free:
                farthest = max(free, key=lambda n: own[n])
                clusters[farthest], own[farthest] = k, 0
        for k in set(clusters):
            centers[k] = xs[[n for n, c in enumerate(clusters) if c == k]].mean(axis=0)
    inertia = sum(((x - centers[k]) ** 2).sum() for x, k in zip(xs, clusters, strict=True))
    return centers, clusters, float(inertia)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("kind", ["plain", "labeled", "empty", "labeled, empty", "duplicates"])
@pytest.mark.parametrize(("num", "dims", "k"), [(30, 1, 3), (60, 3, 9), (70, 6, 14)])
def test_equals_the_slow_version(backend, dtype, offset, kind, num, dims, k, monkeypatch) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr("gcdis_ray.clustering.kmeans._BLOCK", 40)
    generator = _generator(num + k)
    points = torch.randn(num, dims, generator=generator, dtype=torch.float64)
    if kind == "duplicates":
        points = points[torch.randint(num // 2, (num,), generator=generator)]
    points = (points + offset).to(dtype)
    # Different ones: which of two equal centers is the nearer one is a matter of rounding.
    places = torch.unique(points, dim=0)
    start = places[torch.randperm(len(places), generator=generator)[:k]].clone()
    if "empty" in kind:
        start[-2:] += 500  # nobody's nearest
    labels = torch.full((num,), -1)
    if "labeled" in kind:
        labels[: num // 3] = torch.arange(num // 3) % max(k // 3, 1)
    for iterations in (1, 2, 7):
        want = _slow_kmeans(points, labels.tolist(), start, iterations)
        found = kmeans(
            points,
            k,
            _generator(),
            labels_N=labels,
            start_KD=start,
            max_iterations=iterations,
            tolerance=0,
            backend=backend,
        )
        close = 1e-3 if offset and dtype == torch.float32 else 1e-5  # an ulp of 1e4 is 1e-3
        assert found.centers_KD.dtype == dtype
        torch.testing.assert_close(
            found.centers_KD.double(), torch.from_numpy(want[0]), atol=close, rtol=0
        )
        assert found.inertia == pytest.approx(want[2], rel=1e-5)
        if kind != "duplicates":
            assert found.cluster_N.tolist() == want[1]


def test_far_from_zero_every_digit_counts() -> None:
    """Multiples of 1/64 within a few units keep all digits in float32 when 10,000 is added."""
    points = (torch.randn(300, 8, generator=_generator(2)) * 64).round() / 64
    start = points[:12]
    near = kmeans(points, 12, _generator(), start_KD=start, tolerance=0)
    far = kmeans(points + 1e4, 12, _generator(), start_KD=start + 1e4, tolerance=0)
    assert torch.equal(near.cluster_N, far.cluster_N)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-5)
    index, distance = nearest(points + 1e4, start + 1e4)
    want = _slow_nearest(points, start)
    assert index.tolist() == want[0]
    assert distance.tolist() == pytest.approx(want[1], rel=1e-5)
    torch.testing.assert_close(
        means(points + 1e4, index, 12)[0] - 1e4, means(points, index, 12)[0], atol=1e-3, rtol=0
    )
    x, c = points + 1e4, start + 1e4
    naive = (x**2).sum(1, keepdim=True) - 2 * x @ c.T + (c**2).sum(1)
    assert (naive.argmin(1) != torch.tensor(want[0])).float().mean() > 0.1  # why blocks move


# ------------------------------------------------------------ properties


@st.composite
def _problems(draw) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Points on a coarse grid (ties, duplicates), labels, K, seed."""
    num, dims = draw(st.integers(4, 30)), draw(st.integers(1, 3))
    num_known = draw(st.integers(0, 3))
    num_novel = draw(st.integers(0 if num_known else 1, num - num_known))
    seed = draw(st.integers(0, 10_000))
    generator = _generator(seed)
    points = torch.randint(draw(st.integers(1, 8)), (num, dims), generator=generator).double()
    labels = torch.full((num,), -1)
    if num_known:
        many = draw(st.integers(num_known, num - num_novel))
        labels[:many] = torch.arange(many) % num_known
    order = torch.randperm(num, generator=generator)
    return points[order], labels[order], num_known + num_novel, seed


@examples(60)
@given(_problems())
def test_whatever_the_points(problem) -> None:
    points, labels, k, seed = problem

    def run(iterations: int):
        return kmeans(
            points,
            k,
            _generator(seed),
            labels_N=labels,
            max_iterations=iterations,
            tolerance=0,
        )

    found = [run(iterations) for iterations in (1, 2, 3, 5, 20)]
    for before, after in itertools.pairwise(found):
        assert after.inertia <= before.inertia + 1e-9
    for one in found:
        assert torch.equal(one.cluster_N[labels >= 0], labels[labels >= 0])
        assert torch.isfinite(one.centers_KD).all()
        size = torch.bincount(one.cluster_N, minlength=k)
        if len(points[labels < 0].unique(dim=0)) >= k:
            assert int(size.min()) > 0
        mean, _ = means(points, one.cluster_N, k)
        torch.testing.assert_close(one.centers_KD[size > 0], mean[size > 0])
        own = ((points - mean[one.cluster_N]) ** 2).sum()
        assert one.inertia == pytest.approx(float(own), abs=1e-9)
    again = run(20)
    assert torch.equal(again.centers_KD, found[-1].centers_KD)
    assert torch.equal(again.cluster_N, found[-1].cluster_N)


@examples(25)
@given(st.integers(0, 10_000), st.integers(2, 9), st.booleans())
def test_order_of_points_does_not_matter(seed, k, labeled) -> None:
    generator = _generator(seed)
    points = torch.randn(80, 3, generator=generator)
    start = torch.randn(k, 3, generator=generator)
    labels = torch.full((80,), -1)
    if labeled:
        labels[:20] = torch.arange(20) % 2
    order = torch.randperm(80, generator=generator)
    one, two = (
        kmeans(points[some], k, _generator(), labels_N=labels[some], start_KD=start, tolerance=0)
        for some in (torch.arange(80), order)
    )
    torch.testing.assert_close(one.centers_KD, two.centers_KD, atol=1e-5, rtol=1e-5)
    assert torch.equal(one.cluster_N[order], two.cluster_N)


# ------------------------------------------------------------ memory


class _Largest(TorchDispatchMode):
    """Most numbers in a tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return found


@pytest.mark.parametrize("labeled", [False, True])
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_nothing_is_as_large_as_the_points(labeled, backend, monkeypatch) -> None:
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr("gcdis_ray.clustering.kmeans._BLOCK", 1 << 14)
    num, dims, k = 20_000, 16, 40
    points = torch.randn(num, dims, generator=_generator())
    labels = torch.full((num,), -1)
    if labeled:
        labels[::3] = torch.arange(len(labels[::3])) % 10
    start = points[:k].clone()
    start[-1] += 100  # an empty cluster is filled on the way
    with _Largest() as largest:
        for options in ({"start_points": 1000}, {"start_KD": start}):
            found = kmeans(
                points,
                k,
                _generator(),
                labels_N=labels,
                max_iterations=3,
                backend=backend,
                **options,
            )
        nearest(points, found.centers_KD, backend)
        means(points, found.cluster_N, k)
    assert (
        num <= largest.numbers <= 20_480
    )  # a number per point, or a block; N x D is 16 times more


def test_a_start_from_a_sample_is_about_as_good() -> None:
    points, _ = _blobs(10, 400, seed=3)
    whole, sample = (
        kmeans(points, 10, _generator(1), n_init=3, start_points=most).inertia
        for most in (4000, 300)
    )
    assert sample <= 1.05 * whole


# ------------------------------------------------------------ faiss on a GPU


class FaissOfGpus:
    """Stands in for a faiss with indices on GPUs: notes what it is asked for."""

    class GpuIndexFlatConfig:
        device = 0

    class StandardGpuResources:
        def setTempMemory(self, num_bytes: int) -> None:
            self.num_bytes = num_bytes

    class GpuIndexFlatL2:
        def __init__(self, resources, dims: int, place) -> None:
            self.made_of = (resources, dims, place.device)

    class IndexFlatL2:
        def __init__(self, dims: int) -> None:
            self.dims = dims


def test_the_index_lies_where_the_points_are() -> None:
    gpu = torch.device("cuda", 3)
    first, second = (kmeans_module._flat_index(FaissOfGpus, 7, gpu) for _ in range(2))
    assert first.made_of[1:] == (7, 3)
    assert first.made_of[0] is second.made_of[0]  # scratch memory of a GPU is taken once
    assert kmeans_module._flat_index(FaissOfGpus, 7, torch.device("cpu")).dims == 7


def test_a_faiss_without_gpus_is_not_quietly_used_on_one() -> None:
    class FaissOfCpus:
        IndexFlatL2 = FaissOfGpus.IndexFlatL2

    with pytest.raises(ConfigError, match=r"no index on GPUs(.|\n)*gpu"):
        kmeans_module._flat_index(FaissOfCpus, 7, torch.device("cuda", 0))


def _faiss_has_a_gpu() -> bool:
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "GpuIndexFlatL2") and faiss.get_num_gpus() > 0


@pytest.mark.skipif(not _faiss_has_a_gpu(), reason="no GPU, or a faiss without GPUs")
def test_a_gpu_finds_what_the_cpu_finds() -> None:
    points, _ = _blobs(20, 100, dims=24)
    start = points[::100].clone()
    index, distance = nearest(points, start, "faiss")
    there, far = nearest(points.cuda(), start.cuda(), "faiss")
    assert there.is_cuda
    assert torch.equal(there.cpu(), index)
    torch.testing.assert_close(far.cpu(), distance, rtol=1e-4, atol=1e-3)
    here = kmeans(points, 20, _generator(), start_KD=start, backend="faiss")
    away = kmeans(points.cuda(), 20, _generator(), start_KD=start, backend="faiss")
    torch.testing.assert_close(away.centers_KD.cpu(), here.centers_KD, rtol=1e-4, atol=1e-3)
    assert away.inertia == pytest.approx(here.inertia, rel=1e-4)
    assert (away.cluster_N.cpu() == here.cluster_N).double().mean() > 0.999
