from __future__ import annotations

import math

import pytest
import torch

from gcdis_ray.losses.clustering import (
    balance_loss,
    classification_loss,
    clustering_loss,
    sharpened_target,
)


def test_target_by_hand():
    p, mass = torch.tensor([[0.6, 0.4]]), torch.tensor([3.0, 1.0])
    # 0.36 / 3 = 0.12 and 0.16 / 1 = 0.16
    torch.testing.assert_close(sharpened_target(p, mass), torch.tensor([[0.12, 0.16]]) / 0.28)
    torch.testing.assert_close(
        sharpened_target(p, mass, balance=0.0), torch.tensor([[0.36, 0.16]]) / 0.52
    )


def test_target_survives_an_empty_cluster():
    target = sharpened_target(torch.tensor([[0.7, 0.3, 0.0]]), torch.tensor([2.0, 1.0, 0.0]))
    assert target.isfinite().all()
    assert target.sum() == pytest.approx(1)


def test_clustering_loss_is_the_kl_and_has_a_gradient():
    torch.manual_seed(0)
    target = torch.softmax(torch.randn(4, 5), 1)
    cosines = (torch.rand(4, 5) * 2 - 1).requires_grad_()
    q = torch.softmax(cosines / 0.1, 1)
    expected = (target * (target / q).log()).sum(1).mean()
    loss = clustering_loss(target, cosines, 0.1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert cosines.grad is not None
    assert cosines.grad.abs().sum() > 0
    assert clustering_loss(q.detach(), cosines, 0.1).item() == pytest.approx(0, abs=1e-6)


def test_clustering_loss_with_hard_targets_is_finite():
    target = torch.eye(3)
    assert clustering_loss(target, torch.eye(3) * 2 - 1, 0.01).item() == pytest.approx(0, abs=1e-6)


def test_classification_floor_is_low_at_many_classes():
    cosines = torch.zeros(2, 1200)
    cosines[0, 7], cosines[1, 3] = 1.0, 1.0
    loss = classification_loss(cosines, torch.tensor([7, 3]), 0.1, 2)
    assert loss.item() == pytest.approx(math.log(1 + 1199 * math.exp(-10)), rel=1e-4)


@pytest.mark.parametrize("labels", [[-1, -1], [-1, 1]])
def test_classification_without_labels_is_zero_not_nan(labels):
    cosines = torch.randn(2, 4, requires_grad=True)
    loss = classification_loss(cosines, torch.tensor(labels), 0.1, sum(y >= 0 for y in labels))
    loss.backward()
    assert loss.isfinite()
    assert cosines.grad is not None
    assert bool(cosines.grad[0].eq(0).all())
    assert (loss.item() == 0) == (max(labels) < 0)


def test_balance_pulls_towards_the_wanted_shares_like_kl():
    torch.manual_seed(0)
    cosines = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
    wanted = torch.tensor([0.6, 0.2, 0.15, 0.05], dtype=torch.float64)
    mean = torch.softmax(cosines / 0.5, 1).mean(0)
    (kl_gradient,) = torch.autograd.grad((mean * (mean / wanted).log()).sum(), cosines)
    mass = mean.detach() * 50 / wanted
    (ours,) = torch.autograd.grad(balance_loss(cosines, mass, 0.5), cosines)
    torch.testing.assert_close(ours, kl_gradient)


def test_balance_pulls_towards_rare_clusters_like_negative_entropy():
    torch.manual_seed(0)
    cosines = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
    mean = torch.softmax(cosines / 0.5, 1).mean(0)
    (entropy_gradient,) = torch.autograd.grad((mean * mean.log()).sum(), cosines)
    (ours,) = torch.autograd.grad(balance_loss(cosines, mean.detach() * 50, 0.5), cosines)
    torch.testing.assert_close(ours, entropy_gradient)
