"""The four maps that a detector's feature pyramid is made from, of any network.

Shape letters: N images, C channels, H W pixels, h w cells of a map.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import Backbone
from gcdis_ray.backbones.tokens import TokenBackbone

STRIDES = (4, 8, 16, 32)
"""Image px per cell of each map."""


class PyramidMaps(nn.Module):
    """Images, RGB in [0, 1], of whole 32 px -> four maps, of ``channels``.

    A CNN's are those of its stages. A ViT's come from its last one (:class:`SimplePyramid`).

    Raises:
        ConfigError: the network has other stages.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.simple = backbone, None
        if isinstance(backbone, TokenBackbone):
            self.simple = SimplePyramid(backbone.num_features, backbone.patch)
            self.channels = self.simple.channels
        elif tuple(stage.stride for stage in backbone.stages) == STRIDES:
            self.channels = tuple(stage.channels for stage in backbone.stages)
        else:
            raise backbone.cannot(
                f"has maps of strides {[s.stride for s in backbone.stages]}, a detector needs "
                f"{list(STRIDES)}",
                "use another network, such as resnet50",
            )

    def forward(self, images_N3HW: Tensor) -> list[Tensor]:
        if self.simple is None:
            return self.backbone.stage_maps(images_N3HW)
        return self.simple(self.backbone(self.simple.resized(images_N3HW)))


class SimplePyramid(nn.Module):
    """Four maps from a plain ViT's last one (Li et al. 2022, "Exploring Plain Vision Transformer
    Backbones for Object Detection", section 3).

    A patch counts as the power of two px that is nearest to it: images are scaled by patch over
    that, so that the strides hold whatever the patch, and any image of whole 32 px fits.
    """

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.base = min(STRIDES, key=lambda stride: abs(math.log2(stride / patch_px)))
        self.scale = patch_px / self.base
        self.levels = nn.ModuleList(_level(width, self.base, stride) for stride in STRIDES)
        self.channels = tuple(_channels(width, self.base, stride) for stride in STRIDES)

    def resized(self, images_N3HW: Tensor) -> Tensor:
        """Images in which a patch shows ``base`` px of those given."""
        if self.scale == 1:
            return images_N3HW
        size = [round(side * self.scale) for side in images_N3HW.shape[2:]]
        return F.interpolate(images_N3HW, size, mode="bilinear", antialias=True)

    def forward(self, map_NChw: Tensor) -> list[Tensor]:
        return [level(map_NChw) for level in self.levels]


def _channels(width: int, base: int, stride: int) -> int:
    """Halved with every step to a finer map."""
    return width if stride >= base else max(width * stride // base, 16)


def _level(width: int, base: int, stride: int) -> nn.Module:
    """From stride ``base`` to ``stride``: transposed convolutions upwards, pooling downwards."""
    if stride == base:
        return nn.Identity()
    if stride > base:
        return nn.MaxPool2d(stride // base)
    layers: list[nn.Module] = []
    at, channels = base, width
    while at > stride:
        at //= 2
        out = _channels(width, base, at)
        if layers:
            layers += [nn.GroupNorm(1, channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, out, 2, stride=2))
        channels = out
    return nn.Sequential(*layers)
