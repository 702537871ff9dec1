from __future__ import annotations

import pytest
import torch
from torch import nn

from gcdis_ray.models.folding import conv_norm


def layers(stride: int, kernel: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, kernel, stride=stride, padding=kernel // 2, bias=False)
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for _ in range(20):  # statistics that differ from their start
        norm(conv(1 + 2 * torch.randn(6, 4, 9, 9)))
    return conv, norm


@pytest.mark.parametrize(("stride", "kernel"), [(1, 1), (2, 1), (1, 3), (2, 3), (2, 7)])
def test_folded_is_close_and_unfolded_is_the_same(stride, kernel):
    conv, norm = layers(stride, kernel)
    norm.eval()
    images = torch.randn(3, 4, 9, 9)
    with torch.no_grad():
        expected = norm(conv(images))
        assert torch.equal(conv_norm(images, conv, norm), expected)
        with torch.autocast("cpu", torch.bfloat16):
            folded = conv_norm(images, conv, norm)
    assert folded.dtype == torch.bfloat16
    torch.testing.assert_close(folded.float(), expected, rtol=0.02, atol=0.05)


def test_what_learns_is_not_folded():
    conv, norm = layers(1, 3)
    images = torch.randn(3, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = nn.functional.batch_norm(
            conv(images), None, None, norm.weight, norm.bias, training=True
        )
        found = conv_norm(images, conv, norm.train())
    assert torch.equal(found, expected)
    found.float().sum().backward()
    assert conv.weight.grad is not None
