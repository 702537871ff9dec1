"""Attention over a grid of shapes, layouts and dtypes against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.methods.gcdis.attention import SoftAttention


def materialised(module: SoftAttention, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Output and S with the affinity in full: (N, T, H W) numbers."""
    tokens = [
        layer(F.adaptive_avg_pool2d(maps, side)).flatten(2)
        for layer, side in zip(module.theta, module.sizes, strict=True)
    ]
    affinity = torch.cat(tokens, dim=2).transpose(1, 2) @ module.phi(maps).flatten(2)
    affinity = affinity.unflatten(2, maps.shape[2:])
    both = torch.cat([affinity, module.gate(maps).mean(dim=1, keepdim=True)], dim=1)
    saliency = torch.sigmoid(module.norm(F.conv2d(both, module.nu.view(1, -1, 1, 1))))
    return saliency * maps, saliency


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    ("channels", "sizes", "side"), [(32, (18, 12, 8), (28, 28)), (24, (2, 2, 1), (5, 3))]
)
def test_folded_attention_equals_the_materialised_affinity_gradients_included(
    channels: int,
    sizes: tuple[int, ...],
    side: tuple[int, int],
    dtype: torch.dtype,
    near: float,
    layout: torch.memory_format,
    training: bool,
):
    torch.manual_seed(0)
    module = SoftAttention(channels, sizes).to(dtype)
    nn.init.constant_(module.norm.weight, 1.3)  # as trained: at its start S is the same everywhere
    module(torch.randn(4, channels, *side, dtype=dtype))  # running statistics that are not 0 and 1
    module.train(training)
    maps = torch.randn(2, channels, *side, dtype=dtype).contiguous(memory_format=layout)
    found = []
    for forward in (module, lambda x: materialised(module, x)):
        entry = maps.clone().requires_grad_()
        out, saliency = forward(entry)
        loss = (out.square().mean() + saliency.sin().mean()) * 10
        found.append(
            [out, saliency, *torch.autograd.grad(loss, [entry, *module.parameters()])],
        )
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near)
