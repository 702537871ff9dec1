"""MobileNetV2 with trained weights: the body of a detector or of the discovery model's encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcdis_ray.models.backbones import (
    INVERTED_RESIDUALS,
    MobileNetV2,
    build_backbone,
    read_weights,
    same_padding,
)

CHANNELS = (24, 32, 96, 320)  # of the levels of stride 4, 8, 16 and 32
TOP_CHANNELS = 1280
_LAST_BLOCKS = (3, 6, 13, 17)  # whose outputs these are
_STEM, _TOP = "features.0.0", "features.18.0"

Gate = Callable[[int, Tensor], Tensor]


def _layers(top: bool) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Name and weight shape of every convolution up to the last level, or to the top."""
    yield _STEM, (32, 3, 3, 3)
    channels, block = 32, 1
    for expansion, out, repeats, _ in INVERTED_RESIDUALS:
        for _ in range(repeats):
            hidden, prefix = channels * expansion, f"features.{block}.conv"
            if expansion > 1:
                yield f"{prefix}.0.0", (hidden, channels, 1, 1)
            part = int(expansion > 1)
            yield f"{prefix}.{part}.0", (hidden, 1, 3, 3)
            yield f"{prefix}.{part + 1}", (out, hidden, 1, 1)
            channels, block = out, block + 1
    if top:
        yield _TOP, (TOP_CHANNELS, channels, 1, 1)


class MobileNetBody(nn.Module):
    """``forward((N, 3, H, W))`` gives the four levels, named ``0`` to ``3``, and perhaps ``top``.

    Weights have batch norm folded in and are stored with the model. How the network they come from
    padded and normalised its images is stored with them and never trained. Fixed weights cost no
    backward pass.

    Args:
        mean, std: (3, 1, 1), the normalisation of the images given, of RGB values in [0, 255].
        trainable: let the convolutions learn.
        top: end in the last 1x1 convolution, of 1280 channels.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, *, trainable: bool = False, top: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ParameterDict()
        self._names = [name for name, _ in _layers(top)]
        for name, shape in _layers(top):
            for kind, value in (("weight", torch.zeros(shape)), ("bias", torch.zeros(shape[0]))):
                self.layers[_key(name, kind)] = nn.Parameter(value, requires_grad=trainable)
        self.scale = _fixed(torch.ones(3, 1, 1))
        self.shift = _fixed(torch.zeros(3, 1, 1))
        self.same_padding = _fixed(torch.zeros(1))  # 1: TensorFlow's, uneven at stride 2
        self._given, self._top = (mean, std), top

    def load(self, path: str, sha256: str) -> None:
        """Take the weights of a file that :func:`gcdis_ray.models.backbones.read_weights` reads.

        Raises:
            ConfigError: missing, another file than pinned, or not of a MobileNetV2.
        """
        net = build_backbone("mobilenet_v2", read_weights(Path(path), sha256), where=path)
        if not isinstance(net, MobileNetV2):
            raise TypeError(f"{type(net).__name__} is no MobileNetV2")
        with torch.no_grad():
            for name in self._names:
                weight, bias = net.layer(name)
                self.layers[_key(name, "weight")].copy_(weight)
                self.layers[_key(name, "bias")].copy_(bias)
            mean, std = self._given  # given images -> [0, 1] -> as the network knows them
            self.scale.copy_(std / 255 / net.std.view(3, 1, 1))
            self.shift.copy_((mean / 255 - net.mean.view(3, 1, 1)) / net.std.view(3, 1, 1))
            self.same_padding.fill_(float(net._same))

    def forward(self, images_N3HW: Tensor, gate: Gate | None = None) -> dict[str, Tensor]:
        """Args: gate: ``gate(level, map)`` is what the next level sees, and what is returned."""
        same = bool(self.same_padding > 0)
        x = self._conv(_STEM, images_N3HW * self.scale + self.shift, same, stride=2)
        levels, block = {}, 1
        for expansion, _, repeats, first_stride in INVERTED_RESIDUALS:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                y, part, prefix = x, int(expansion > 1), f"features.{block}.conv"
                if part:
                    y = self._conv(f"{prefix}.0.0", y, same)
                y = self._conv(f"{prefix}.{part}.0", y, same, stride=stride, groups=y.shape[1])
                y = self._conv(f"{prefix}.{part + 1}", y, same, relu=False)
                x = x + y if y.shape == x.shape else y
                if block in _LAST_BLOCKS:
                    x = x if gate is None else gate(len(levels), x)
                    levels[str(len(levels))] = x
                block += 1
        if self._top:
            levels["top"] = self._conv(_TOP, x, same)
        return levels

    def _conv(
        self,
        name: str,
        x: Tensor,
        same: bool,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> Tensor:
        weight = self.layers[_key(name, "weight")]
        kernel = weight.shape[-1]
        padding = kernel // 2
        if same and stride > 1:  # at stride 1 it is even
            x, padding = F.pad(x, same_padding(x, kernel, stride)), 0
        bias = self.layers[_key(name, "bias")]
        y = F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)
        return F.relu6(y) if relu else y


def _key(name: str, kind: str) -> str:
    return f"{name}.{kind}".replace(".", "_")


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
