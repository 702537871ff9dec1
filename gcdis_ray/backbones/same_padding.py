"""TensorFlow's SAME padding for a network that pads evenly, as its weights may want."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def pad_as_tensorflow(net: nn.Module) -> None:
    """Make every strided convolution pad its input as TensorFlow does: the odd pixel comes right
    and below. At stride 1 both are the same."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.padding != (0, 0):
            module.padding = (0, 0)
            module.register_forward_pre_hook(_pad)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells before and after one side of a map."""
    pad = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return pad // 2, pad - pad // 2


def _pad(conv: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
    assert isinstance(conv, nn.Conv2d)
    (x,) = inputs
    across = same_padding(x.shape[3], conv.kernel_size[1], conv.stride[1])
    down = same_padding(x.shape[2], conv.kernel_size[0], conv.stride[0])
    return (F.pad(x, (*across, *down)),)
