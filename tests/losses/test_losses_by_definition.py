"""Losses over a grid of shapes and dtypes against plain loops, gradients against differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gcdis_ray.losses.clustering import (
    balance_loss,
    classification_loss,
    clustering_loss,
    sharpened_target,
)
from gcdis_ray.losses.contrastive import class_contrastive_loss, contrastive_log_probabilities
from gcdis_ray.methods.gcdis.attention_loss import attention_loss, contour_weights

DTYPES = [torch.float32, torch.float64]
SHAPES = [(1, 2), (3, 4), (5, 1), (7, 40), (2, 300)]
NEAR = {torch.float32: 2e-5, torch.float64: 1e-11}


def draws(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shares(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def check_gradient(loss: Callable[[Tensor], Tensor], values: Tensor) -> None:
    assert torch.autograd.gradcheck(loss, (values.double().requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num", "classes"), SHAPES)
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_sharpened_target(num: int, classes: int, balance: float, dtype: torch.dtype):
    p = torch.softmax(4 * draws(num, classes, dtype=dtype), dim=1)
    mass = 5 * draws(classes, dtype=dtype, seed=1) + 0.01
    found = sharpened_target(p, mass, balance)
    assert found.dtype == dtype
    for row, ours in zip(p.tolist(), found.tolist(), strict=True):
        raw = [q * q / f**balance for q, f in zip(row, mass.tolist(), strict=True)]
        assert ours == pytest.approx([value / sum(raw) for value in raw], rel=1e-4)
    same_ratio = sharpened_target(p, 1000 * mass, balance)
    torch.testing.assert_close(same_ratio, found)  # only ratios of mass matter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num", "classes"), SHAPES)
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_clustering_loss(num: int, classes: int, temperature: float, dtype: torch.dtype):
    target = torch.softmax(3 * draws(num, classes, dtype=dtype), dim=1)
    target[:, 0] = 0.0  # a class without a chance
    target = target / target.sum(dim=1, keepdim=True) if classes > 1 else torch.ones_like(target)
    cosines = 2 * draws(num, classes, dtype=dtype, seed=1) - 1
    terms = []
    for wanted, row in zip(target.tolist(), cosines.tolist(), strict=True):
        q = shares(row, temperature)
        terms.append(sum(t * math.log(t / o) for t, o in zip(wanted, q, strict=True) if t > 0))
    found = clustering_loss(target, cosines, temperature)
    assert found.item() == pytest.approx(sum(terms) / num, rel=NEAR[dtype], abs=NEAR[dtype])
    if num * classes < 20:
        check_gradient(lambda c: clustering_loss(target.double(), c, temperature), cosines)


def test_clustering_loss_by_hand():
    # q = (3/4, 1/4) from cosines ln 3 apart; target (1/2, 1/2): ln(2/3)/2 + ln(2)/2 = ln(4/3)/2
    cosines = torch.tensor([[0.1 * math.log(3.0), 0.0]])
    found = clustering_loss(torch.tensor([[0.5, 0.5]]), cosines, 0.1)
    assert found.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-5)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_losses_at_the_largest_logits_that_cosines_give(dtype: torch.dtype):
    cosines = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)  # the opposite
    losses = [
        clustering_loss(target, cosines, 0.002),
        classification_loss(cosines, torch.tensor([1, 0]), 0.002, 2.0),
        balance_loss(cosines, torch.tensor([1.0, 0.0, 0.0], dtype=dtype), 0.002),
    ]
    for loss in losses[:2]:
        assert float(loss.detach()) == pytest.approx(1000, rel=0.01)
    torch.stack([loss.float() for loss in losses]).sum().backward()
    assert cosines.grad is not None
    assert bool(cosines.grad.isfinite().all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num", "classes"), SHAPES)
def test_classification_loss(num: int, classes: int, dtype: torch.dtype):
    cosines = 2 * draws(num, classes, dtype=dtype) - 1
    labels = torch.randint(-1, classes, (num,), generator=torch.Generator().manual_seed(2))
    rows = zip(cosines.tolist(), labels.tolist(), strict=True)
    terms = [-math.log(shares(row, 0.1)[y]) for row, y in rows if y >= 0]
    for count in (0.25, 1.0, 5.0):  # 0.25: one labeled crop among the four parts of a step
        found = classification_loss(cosines, labels, 0.1, count)
        assert found.item() == pytest.approx(sum(terms) / count, rel=NEAR[dtype] * 10)


@pytest.mark.parametrize("count", [0.25, 1.0, 3.0])
def test_class_contrastive_loss_divides_by_the_count_it_is_given(count: float):
    log_p = torch.log_softmax(draws(2, 5, dtype=torch.float64), dim=1)
    labels, key_labels = torch.tensor([3, -1]), torch.tensor([3, -1, 3, 0, -1])
    found = class_contrastive_loss(log_p, labels, key_labels, count)
    assert found.item() == pytest.approx(-float(log_p[0, 0] + log_p[0, 2]) / 2 / count)


def test_contrastive_losses_by_hand():
    """Two anchors, two keys in the batch, one in the queue: a stale key of the first anchor."""
    similarity = torch.tensor([[0.8, 0.2, 0.9], [0.1, 0.5, 0.5]])
    tau, ids = torch.tensor([0.1, 0.5]), torch.tensor([7, 8])
    own, key_ids = torch.tensor([0, 1]), torch.tensor([7, 8, 7])
    labels, key_labels = torch.tensor([2, 2]), torch.tensor([2, 2, 2])
    log_p = contrastive_log_probabilities(similarity, tau, ids, key_ids, own)
    first = [math.exp(8), math.exp(2)]
    second = [math.exp(0.2), math.exp(1), math.exp(1)]
    assert log_p[0, :2].exp().tolist() == pytest.approx([w / sum(first) for w in first], rel=1e-4)
    assert log_p[0, 2] == -math.inf
    assert log_p[1].exp().tolist() == pytest.approx([w / sum(second) for w in second], rel=1e-4)
    found = class_contrastive_loss(log_p, labels, key_labels, 2)
    terms = [
        -sum(math.log(w / sum(first)) for w in first) / 2,
        -sum(math.log(w / sum(second)) for w in second) / 3,
    ]
    assert found.item() == pytest.approx(sum(terms) / 2, rel=1e-4)


@pytest.mark.parametrize(("num", "classes"), SHAPES)
def test_balance_loss(num: int, classes: int):
    cosines, mass = draws(num, classes, dtype=torch.float64), draws(classes, dtype=torch.float64)
    mean = [0.0] * classes
    for row in cosines.tolist():
        mean = [m + q / num for m, q in zip(mean, shares(row, 0.2), strict=True)]
    share = [f / sum(mass.tolist()) for f in mass.tolist()]
    expected = sum(m * math.log(f) for m, f in zip(mean, share, strict=True))
    assert balance_loss(cosines, mass, 0.2).item() == pytest.approx(expected, rel=1e-6)


MAPS = [(3, 3), (4, 7), (9, 5), (16, 16), (1, 6), (2, 2)]


@pytest.mark.parametrize(("high", "wide"), MAPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_loss_on_any_map(high: int, wide: int, dtype: torch.dtype):
    """Nearest mask, contours by the Laplacian, ring at full weight, mean over pixels and stages."""
    mask = (draws(2, 1, 20, 15, dtype=dtype) > 0.6).to(dtype)
    saliencies = [draws(2, 1, high, wide, dtype=dtype, seed=s) for s in (1, 2)]
    weights, expected = (0.25, 0.75), 0.0
    for saliency, weight in zip(saliencies, weights, strict=True):
        for n in range(2):
            small = [
                [
                    float(mask[n, 0, int((y + 0.5) * 20 / high), int((x + 0.5) * 15 / wide)])
                    for x in range(wide)
                ]
                for y in range(high)
            ]
            for y in range(high):
                for x in range(wide):
                    w = 1.0
                    if 0 < y < high - 1 and 0 < x < wide - 1:
                        near = [small[y + a][x + b] for a in (-1, 0, 1) for b in (-1, 0, 1)]
                        w = weight if sum(near) - 9 * small[y][x] else 1.0
                    gap = float(saliency[n, 0, y, x]) - small[y][x]
                    expected += w * gap * gap / (2 * high * wide) / 2
    assert attention_loss(saliencies, mask, weights).item() == pytest.approx(expected, rel=1e-5)


def test_contours_in_half_precision_are_exact():
    mask = (draws(1, 1, 12, 12, dtype=torch.float32) > 0.5).float()
    expected = contour_weights(mask, 0.25)
    assert torch.equal(contour_weights(mask.bfloat16(), 0.25).float(), expected)
