"""Residual encoder from scratch, with a gate after every stage if wanted. Those of timm start at
weights: :mod:`gcdis_ray.models.body_encoder`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.models.folding import ConvNorm, conv_norm

AttentionOf = Callable[[int, int], nn.Module]
"""``(stage, channels)``, stage from 0, gives the module that gates the stage's map: its forward
takes the map (N, C, H, W) and returns the gated one and its saliency, (N, 1, H, W) in (0, 1)."""


def _conv3(channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(channels, out, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = _conv3(out, out), nn.BatchNorm2d(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, map_NCHW: Tensor) -> Tensor:
        out = F.relu(conv_norm(map_NCHW, self.conv1, self.bn1), inplace=True)
        return _join(conv_norm(out, self.conv2, self.bn2), self.downsample(map_NCHW))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions and a shortcut; inner width a quarter."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        inner = out // 4
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv3(inner, inner, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, map_NCHW: Tensor) -> Tensor:
        out = F.relu(conv_norm(map_NCHW, self.conv1, self.bn1), inplace=True)
        out = F.relu(conv_norm(out, self.conv2, self.bn2), inplace=True)
        return _join(conv_norm(out, self.conv3, self.bn3), self.downsample(map_NCHW))


def _join(out_NCHW: Tensor, shortcut_NCHW: Tensor) -> Tensor:
    """relu(out + shortcut), written over ``out``: batch norm needs its output for nothing."""
    return F.relu(out_NCHW.add_(shortcut_NCHW), inplace=True)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out:
        return nn.Identity()
    return ConvNorm(nn.Conv2d(channels, out, 1, stride=stride, bias=False))


class ResNetEncoder(nn.Module):
    """Crop -> feature vector, and one saliency map per stage if it has attention.

    GCDIS uses ``block="bottleneck", blocks=[3, 4, 6, 3], widths=[256, 512, 1024, 2048],
    stem_width=64, stem_kernel=7, stem_stride=2, stem_pool=False``: 224 px crops give stages of
    112, 56, 28 and 14 px. Stages after the first halve the map.

    Args:
        block: kind of residual block.
        blocks, widths: blocks and output channels per stage.
        stem_width, stem_kernel, stem_stride: the first convolution.
        stem_pool: max-pool after the stem, as in pretrained ResNets: a quarter of the cost.
        channels: of the input: RGB, and the mask as a fourth.
        attention: makes the gate after each stage; None: none.
    """

    def __init__(
        self,
        *,
        block: Literal["basic", "bottleneck"],
        blocks: Sequence[int],
        widths: Sequence[int],
        stem_width: int,
        stem_kernel: int,
        stem_stride: int,
        stem_pool: bool,
        channels: int = 3,
        attention: AttentionOf | None = None,
    ) -> None:
        super().__init__()
        kind = BasicBlock if block == "basic" else Bottleneck
        self.conv1 = nn.Conv2d(
            channels,
            stem_width,
            stem_kernel,
            stride=stem_stride,
            padding=stem_kernel // 2,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.stem_pool = stem_pool
        self.num_stages, self.num_features = len(widths), widths[-1]
        width_in = stem_width
        for stage, (depth, width) in enumerate(zip(blocks, widths, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (depth - 1)
            layers = []
            for stride in strides:
                layers.append(kind(width_in, width, stride))
                width_in = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.attended = tuple(range(self.num_stages)) if attention else ()
        self.attention = nn.ModuleList(
            attention(stage, width) for stage, width in enumerate(widths) if attention
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args: images normalised per channel. Returns features (N, C) and saliencies per stage,
        each (N, 1, H, W); an empty list without attention."""
        out = F.relu(conv_norm(images_NCHW, self.conv1, self.bn1), inplace=True)
        if self.stem_pool:
            out = F.max_pool2d(out, 3, stride=2, padding=1)
        saliencies: list[Tensor] = []
        for stage in range(self.num_stages):
            out = self.get_submodule(f"layer{stage + 1}")(out)
            if self.attention:
                out, saliency = self.attention[stage](out)
                saliencies.append(saliency)
        return torch.flatten(F.adaptive_avg_pool2d(out, 1), 1), saliencies
