"""A convolution and the batch norm behind it, as one operation where that is safe."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(map_NCHW: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """norm(conv(map)).

    In eval mode the norm is a scale and a shift per channel, which the convolution's weights and
    bias can carry: one pass over the map less. That happens without gradients and in mixed
    precision only: for the momentum encoder. In fp32 results would change in their last bits, for
    nothing that fp32 is chosen for.
    """
    device = map_NCHW.device.type
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    variance, mean = norm.running_var, norm.running_mean
    if norm.training or torch.is_grad_enabled() or not mixed or variance is None or mean is None:
        return norm(conv(map_NCHW))
    scale_C = norm.weight * torch.rsqrt(variance + norm.eps)
    weight = conv.weight * scale_C[:, None, None, None]
    shift_C = norm.bias - mean * scale_C
    return F.conv2d(map_NCHW, weight, shift_C, conv.stride, conv.padding)


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch norm, under the names 0 and 1."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv, nn.BatchNorm2d(conv.out_channels))

    def forward(self, map_NCHW: Tensor) -> Tensor:
        conv, norm = cast("tuple[nn.Conv2d, nn.BatchNorm2d]", tuple(self))
        return conv_norm(map_NCHW, conv, norm)
