"""Temperature and reliability over a grid of shapes and dtypes against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.clustering.reliability import classwise_rank_share, kappa, rank_share, stability
from gcdis_ray.methods.gcdis.headness import HeadnessTable, headness


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.25, 1.0])
@pytest.mark.parametrize(("num", "keys"), [(1, 1), (3, 7), (5, 200)])
def test_headness(num: int, keys: int, share: float, dtype: torch.dtype):
    torch.manual_seed(0)
    z = F.normalize(torch.randn(num, 6, dtype=dtype), dim=1)
    queue = F.normalize(torch.randn(keys, 6, dtype=dtype), dim=1)
    ids, key_ids = torch.arange(num), torch.randint(0, 9, (keys,))
    found = headness(z @ queue.T, ids[:, None] != key_ids, share)
    assert found.dtype == dtype
    for i in range(num):
        foreign = [j for j in range(keys) if key_ids[j] != i]
        weights = sorted((math.exp(float(z[i] @ queue[j])) for j in foreign), reverse=True)
        near = weights[: max(1, round(share * keys))]
        expected = sum(near) / sum(weights) if weights else 0.0
        assert found[i].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num", [2, 3, 10, 11, 101, 1000])
def test_temperatures_span_the_percentiles_of_those_seen(num: int):
    rng = np.random.default_rng(num)
    h, order = rng.gamma(2.0, 0.01, num).astype(np.float32), rng.permutation(num)
    table = HeadnessTable(num + 5, 0.97, 0.07, 1.0)  # five are never seen
    for some in np.array_split(order, 3):
        table.update(torch.from_numpy(some), torch.from_numpy(h[some]))
    table.assign()
    low, high = np.percentile(h.astype(np.float64), [10, 90])
    expected = 0.07 + 0.93 * np.clip((h - low) / (high - low), 0, 1)
    np.testing.assert_allclose(table.temperatures[:num].numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(table.temperatures[num:].numpy(), 0.07, rtol=1e-6)


def test_headness_that_differs_by_rounding_alone_moves_no_temperature():
    table = HeadnessTable(6, 0.97, 0.07, 1.0)
    nearly = torch.full((6,), 0.5)
    nearly[::2] = torch.nextafter(nearly[0], torch.tensor(1.0))
    table.update(torch.arange(6), nearly)
    table.assign()
    assert table.temperatures.tolist() == pytest.approx([0.07] * 6)


@pytest.mark.parametrize(("snapshots", "num", "classes"), [(2, 1, 2), (3, 5, 4), (5, 9, 30)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stability(snapshots: int, num: int, classes: int, dtype: type):
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(classes, 0.3), (snapshots, num)).astype(dtype)

    def floored(row: np.ndarray) -> list[float]:
        clipped = [max(float(value), 1e-8) for value in row]
        return [value / sum(clipped) for value in clipped]

    sums, means, votes = [], [], []
    for i in range(num):
        last, kl = floored(q[-1, i]), []
        for t in range(snapshots - 1):
            other = floored(q[t, i])
            pairs = zip(last, other, strict=True)
            kl.append(max(sum(a * math.log(a / b) for a, b in pairs), 1e-6))
        sums.append(sum(1 / one for one in kl))
        means.append(-sum(kl) / len(kl))
        votes.append(np.mean([q[t, i].argmax() == q[-1, i].argmax() for t in range(snapshots - 1)]))
    np.testing.assert_allclose(stability(q), sums, rtol=1e-5)
    np.testing.assert_allclose(stability(q, "neg_mean_kl"), means, rtol=1e-5)
    np.testing.assert_allclose(stability(q, "last_k_agreement"), votes)


@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("progress", [0.0, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("drop", [0.0, 0.2, 1.0])
def test_kappa_modes(scale: float, progress: float, drop: float):
    rng = np.random.default_rng(1)
    scores, classes = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 40)
    classes[0] = 99  # a class of one
    for i in range(40):
        same = [j for j in range(40) if classes[j] == classes[i]]
        u, overall = (
            (sum(scores[j] < scores[i] for j in group) + _mean_place(scores, group, i)) / len(group)
            for group in (same, list(range(40)))
        )
        assert classwise_rank_share(scores, classes)[i] == pytest.approx(u)
        assert rank_share(scores)[i] == pytest.approx(overall)
        expected = {
            "none": scale,
            "classwise_cut": scale if u > drop else 0.0,
            "global_cut": scale if overall > drop else 0.0,
            "quadratic": scale * (1 - max(progress - u, 0) ** 2),
            "quadratic_global": scale * (1 - max(progress - overall, 0) ** 2),
        }
        for mode, value in expected.items():
            found = kappa(
                classwise_rank_share(scores, classes)[[i]],
                progress,
                mode,  # type: ignore[arg-type]
                scale=scale,
                drop_share=drop,
                global_rank_N=rank_share(scores)[[i]],
            )
            assert found[0] == pytest.approx(value), mode
    assert classwise_rank_share(scores, classes)[0] == 1.0


def _mean_place(scores: np.ndarray, group: list[int], i: int) -> float:
    """Mean of the places that instances of i's score share, counted from 1 after the lower ones."""
    equal = sum(scores[j] == scores[i] for j in group)
    return (equal + 1) / 2


def test_kappa_of_large_classes_ends_at_two_thirds():
    classes = np.repeat(np.arange(3), 400)
    scores = np.random.default_rng(0).random(1200)
    u = classwise_rank_share(scores, classes)
    assert kappa(u, 0.0, scale=0.8).tolist() == [0.8] * 1200
    assert kappa(u, 1.0, scale=0.9).mean() == pytest.approx(0.9 * 2 / 3, abs=2e-3)
    ends = [kappa(u[classes == c], 1.0) for c in range(3)]
    assert all(end.min() == pytest.approx(1 - (1 - 1 / 400) ** 2) for end in ends)
    assert all(end.max() == 1 for end in ends)
