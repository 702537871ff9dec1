from __future__ import annotations

import pytest
import torch

from gcdis_ray.methods.gcdis.attention_loss import attention_loss, contour_weights


def square(side: int = 8) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., 2:6, 2:6] = 1
    return mask


def test_zero_for_a_perfect_map():
    mask = square()
    half = mask[..., ::2, ::2]
    assert attention_loss([mask, half], mask, (0.25, 1.0)) == 0


def test_contour_weight_by_hand():
    weights = contour_weights(square(), 0.25)[0, 0]
    assert weights[3, 3] == weights[4, 4] == 1  # inside, away from the border
    assert weights[2, 2] == weights[1, 3] == weights[1, 1] == 0.25  # both sides of the border
    assert weights[0].eq(1).all()
    assert weights[:, -1].eq(1).all()
    assert int((weights == 0.25).sum()) == 32  # 36 pixels around the border less 4 inside


def test_outermost_ring_keeps_full_weight():
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 0:3, :] = 1
    weights = contour_weights(mask, 0.5)[0, 0]
    assert weights[2, 1:5].eq(0.5).all()
    assert weights[2, 0] == 1
    assert weights[3, 5] == 1


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_maps(side):
    loss = attention_loss([torch.full((1, 1, side, side), 0.5)], square(), (0.25,))
    assert loss.isfinite()


def test_stages_count_alike_and_gradient_flows():
    saliencies = [torch.full((1, 1, s, s), 0.5, requires_grad=True) for s in (8, 4)]
    loss = attention_loss(saliencies, square(), (1.0, 1.0))
    torch.testing.assert_close(loss, torch.tensor(0.25))
    loss.backward()
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in saliencies)
