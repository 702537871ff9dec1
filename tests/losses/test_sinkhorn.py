"""Sinkhorn-Knopp against plain loops, and its marginals whatever the logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gcdis_ray.losses.sinkhorn import sinkhorn


def cosines(num: int, classes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(num, classes, generator=generator, dtype=torch.float64) - 1


def by_loops(logits: Tensor, epsilon: float, iterations: int, share: list[float]) -> list[list]:
    """Scale columns to their mass, then rows to 1, in turn."""
    q = [[math.exp(value / epsilon) for value in row] for row in logits.tolist()]
    wanted = [len(q) * value / sum(share) for value in share]
    for _ in range(iterations):
        mass = [sum(row[k] for row in q) for k in range(len(share))]
        q = [[v * w / m for v, w, m in zip(row, wanted, mass, strict=True)] for row in q]
        q = [[v / sum(row) for v in row] for row in q]
    return q


@pytest.mark.parametrize("share", [None, [1.0, 2.0, 0.5, 4.0]])
@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize("num", [1, 7])
def test_it_equals_plain_scaling(num: int, iterations: int, share: list[float] | None):
    logits = cosines(num, 4)
    wanted = None if share is None else torch.tensor(share)
    found = sinkhorn(logits, 0.05, iterations, wanted)
    expected = torch.tensor(by_loops(logits, 0.05, iterations, share or [1.0] * 4))
    torch.testing.assert_close(found, expected.double())


@given(
    num=st.integers(1, 30),
    classes=st.integers(1, 12),
    seed=st.integers(0, 1000),
    epsilon=st.floats(0.005, 1),
    iterations=st.integers(1, 5),
)
def test_rows_sum_to_one_whatever_comes(num, classes, seed, epsilon, iterations):
    share = cosines(1, classes, seed + 1)[0].clamp(min=0) + 1e-3
    found = sinkhorn(cosines(num, classes, seed).float(), epsilon, iterations, share)
    assert found.dtype == torch.float32
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(num))


@given(num=st.integers(1, 30), classes=st.integers(1, 12), seed=st.integers(0, 1000))
def test_clusters_get_the_mass_they_are_to_have(num, classes, seed):
    share = cosines(1, classes, seed + 1)[0].abs() + 0.05
    found = sinkhorn(cosines(num, classes, seed), 0.5, 200, share)
    torch.testing.assert_close(found.sum(dim=0), num * share / share.sum(), rtol=1e-6, atol=1e-6)


def test_the_result_is_the_best_of_its_sizes():
    """Any move of mass round a square of two crops and two clusters makes the objective worse."""
    logits, epsilon = cosines(5, 3), 0.3
    best = sinkhorn(logits, epsilon, 500)

    def objective(q: Tensor) -> float:
        return float((q * logits).sum() + epsilon * torch.special.entr(q).sum())

    for a, b, j, k in [(0, 1, 0, 1), (2, 4, 1, 2), (3, 0, 2, 0)]:
        for step in (1e-4, -1e-4):
            moved = best.clone()
            moved[a, j] += step
            moved[b, k] += step
            moved[a, k] -= step
            moved[b, j] -= step
            assert objective(moved) < objective(best)


def test_a_cluster_of_no_share_gets_nothing_and_no_crop_is_no_fault():
    found = sinkhorn(cosines(6, 3), 0.05, 3, torch.tensor([1.0, 0.0, 1.0]))
    assert float(found[:, 1].sum()) == 0
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6).double())
    assert sinkhorn(torch.zeros(0, 3), 0.05, 3).shape == (0, 3)


def test_a_crop_of_no_weight_is_not_there():
    logits, share = cosines(6, 3), torch.tensor([0.2, 0.3, 0.5])
    weight = torch.tensor([1, 0, 1, 1, 0, 1])
    found = sinkhorn(logits, 0.1, 4, share, weight)
    assert not found[weight == 0].any()
    torch.testing.assert_close(found[weight > 0], sinkhorn(logits[weight > 0], 0.1, 4, share))
    assert not sinkhorn(logits, 0.1, 4, share, torch.zeros(6)).any()
    heavy = sinkhorn(logits, 0.5, 300, share, torch.tensor([3.0, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(heavy.sum(dim=1)[0].item(), 3.0)
    torch.testing.assert_close(heavy.sum(dim=0), 8 * share.double())


def test_it_gives_no_gradient():
    assert not sinkhorn(cosines(3, 2).requires_grad_(), 0.1, 3).requires_grad
