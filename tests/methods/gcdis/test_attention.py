"""The folded attention equals the affinity it never builds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.methods.gcdis.attention import SoftAttention, pooled_sizes


def materialised(module: SoftAttention, map_NCHW: torch.Tensor) -> torch.Tensor:
    """S by the published steps: the full affinity, then a 1x1 convolution over [A, G]."""
    n, _, h, w = map_NCHW.shape
    theta = [
        layer(F.adaptive_avg_pool2d(map_NCHW, side)).flatten(2)
        for layer, side in zip(module.theta, module.sizes, strict=True)
    ]
    theta_NTR = torch.cat(theta, 2).transpose(1, 2)
    affinity = torch.bmm(theta_NTR, module.phi(map_NCHW).flatten(2)).view(n, -1, h, w)
    gate = module.gate(map_NCHW).mean(1, keepdim=True)
    mixed = F.conv2d(torch.cat([affinity, gate], 1), module.nu.view(1, -1, 1, 1))
    return torch.sigmoid(module.norm(mixed))


def trained(module: SoftAttention) -> SoftAttention:
    """A module whose gate has moved from its even start."""
    torch.nn.init.uniform_(module.norm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(module.norm.bias, -0.5, 0.5)
    return module


@pytest.mark.parametrize("side", [(12, 12), (7, 11), (2, 2), (1, 5)])
def test_folded_equals_materialised(side):
    torch.manual_seed(0)
    module = trained(SoftAttention(16, (6, 4, 3), reduction=4))
    maps = torch.randn(3, 16, *side)
    out, saliency = module(maps)
    torch.testing.assert_close(saliency, materialised(module, maps), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out, saliency * maps)


def test_gradients_equal_materialised():
    torch.manual_seed(1)
    module = trained(SoftAttention(16, (3, 2), reduction=4)).double()
    maps = torch.randn(4, 16, 8, 8, dtype=torch.float64)
    weight = torch.randn(4, 1, 8, 8, dtype=torch.float64)

    def gradients(saliency):
        loss = (saliency * weight).sum()
        return torch.autograd.grad(loss, list(module.parameters()))

    folded, naive = gradients(module(maps)[1]), gradients(materialised(module, maps))
    for ours, theirs in zip(folded, naive, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_it_starts_even_and_learns_where_to_look():
    torch.manual_seed(2)
    module = SoftAttention(16, (3, 2), reduction=4)
    maps = torch.randn(4, 16, 8, 8)
    out, saliency = module(maps)
    assert torch.equal(saliency, torch.full_like(saliency, 0.5))
    torch.testing.assert_close(out, maps / 2)
    left = torch.zeros(4, 1, 8, 8)
    left[..., :4] = 1
    maps = maps + 2 * left
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        (module(maps)[1] - left).square().mean().backward()
        optimizer.step()
    assert (module(maps)[1] - left).square().mean() < 0.05


def test_pooled_sizes_are_the_published_ones():
    sizes = [pooled_sizes((18, 12, 8), stage) for stage in range(4)]
    assert sizes == [(18, 12, 8), (9, 6, 4), (4, 3, 2), (2, 2, 1)]
    assert [sum(k * k for k in stage) for stage in sizes] == [532, 133, 29, 9]
