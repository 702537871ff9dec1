"""Swapped prediction against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from gcdis_ray.losses.swapped import soft_cross_entropy, swapped_prediction_loss


def by_loops(targets, cosines, temperature, weights):
    """Over ordered pairs of views and crops."""
    terms, views = [], range(len(cosines))
    for told in views:
        for asked in views:
            if told == asked:
                continue
            for n, weight in enumerate(weights):
                powers = [math.exp(c / temperature) for c in cosines[asked][n]]
                log_q = [math.log(p / sum(powers)) for p in powers]
                terms.append(
                    -weight * sum(t * q for t, q in zip(targets[told][n], log_q, strict=True))
                )
    return sum(terms) / len(terms)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_every_view_is_told_by_every_other(views: int, temperature: float):
    generator = torch.Generator().manual_seed(views)
    cosines = 2 * torch.rand(views, 4, 5, generator=generator, dtype=torch.float64) - 1
    targets = torch.softmax(torch.rand(views, 4, 5, generator=generator).double() * 5, dim=2)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5]).double()
    found = swapped_prediction_loss(targets, cosines, temperature, weights)
    expected = by_loops(targets.tolist(), cosines.tolist(), temperature, weights.tolist())
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_no_gradient_reaches_a_target_and_a_view_is_not_told_by_itself():
    cosines = torch.zeros(2, 1, 2, requires_grad=True)
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], requires_grad=True)
    swapped_prediction_loss(targets, cosines, 1.0).backward()
    assert targets.grad is None
    assert cosines.grad is not None
    assert bool((cosines.grad[0, 0] == torch.tensor([0.25, -0.25])).all())  # told: the second class
    assert bool((cosines.grad[1, 0] == torch.tensor([-0.25, 0.25])).all())


def test_a_target_of_zeros_leaves_its_crop_out():
    cosines = torch.tensor([[0.5, 0.1], [0.2, 0.9]], requires_grad=True)
    soft_cross_entropy(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), cosines, 0.1).backward()
    assert cosines.grad is not None
    assert not cosines.grad[0].any()
    assert cosines.grad[1].any()
