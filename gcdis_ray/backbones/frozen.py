"""Frozen backbones that place a crop in a feature space before anything is learned about it.

Weights trained with class labels know names of many "novel" classes; results should say so.

Shape letters: N crops, C channels, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import Backbone
from gcdis_ray.backbones.config import Features
from gcdis_ray.backbones.pooling import pool
from gcdis_ray.errors import ConfigError

FeatureKind = Literal["class_token", "patch_mean", "both"]


class FrozenBackbone(nn.Module):
    """Crops -> features of length 1. Subclasses say how a map of features is made."""

    def forward(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        """Args:
            images_N3HW: uint8 RGB of one size.
            masks_N1HW: uint8, 0 or 255: pool over the object only. None: over the whole crop.

        Returns:
            (N, D) float32, L2-normalised.
        """
        with torch.inference_mode():
            features = self.features(images_N3HW.float() / 255, masks_N1HW)
        return F.normalize(features, dim=1)

    def features(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        """(N, D) features of images in [0, 1]."""
        raise NotImplementedError


def feature_kind(backbone: Backbone, features: Features) -> FeatureKind:
    """What ``auto`` is for a network: the mean of its last map, with the class token if it has one.

    Raises:
        ConfigError: a class token is wanted where there is none.
    """
    if features == "auto":
        return "both" if backbone.has_class else "patch_mean"
    if features != "patch_mean" and not backbone.has_class:
        raise ConfigError(
            f"backbone {backbone.name} has no class token", fix="use features: patch_mean"
        )
    return features


def joined_features(
    class_NC: Tensor | None, map_NCHW: Tensor, masks_N1HW: Tensor | None, kind: FeatureKind
) -> Tensor:
    """Features (N, D) of what :meth:`Backbone.tokens` gives: of the parts that ``kind`` names, each
    of length 1.

    Args:
        masks_N1HW: as of :func:`gcdis_ray.backbones.pooling.pool`.
    """
    parts = [] if class_NC is None or kind == "patch_mean" else [class_NC]
    if kind != "class_token":
        parts.append(pool(map_NCHW, masks_N1HW))
    return torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1)


class NetworkFeatures(FrozenBackbone):
    """Features of a network's last map, its class token, or both, each of length 1 and joined.

    Raises:
        ConfigError: see :func:`feature_kind`.
    """

    def __init__(self, backbone: Backbone, features: Features) -> None:
        super().__init__()
        self.kind: FeatureKind = feature_kind(backbone, features)
        # channels last: convolutions on a CPU take three fifths to three quarters of the time
        self.backbone: Backbone = backbone.to(memory_format=torch.channels_last)

    def features(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        images_N3HW = images_N3HW.contiguous(memory_format=torch.channels_last)
        return joined_features(*self.backbone.tokens(images_N3HW), masks_N1HW, self.kind)


class PyramidFeatures(FrozenBackbone):
    """Features of a trained detector: its pyramid's levels pooled and joined.

    Args:
        pyramid: RGB images (N, 3, H, W) in [0, 255] -> {name: (N, C, h, w)}.
    """

    def __init__(self, pyramid: Callable[[Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self._pyramid = pyramid

    def features(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        levels = self._pyramid(images_N3HW * 255)
        pooled = [pool(level, masks_N1HW) for level in levels.values()]
        return torch.cat([F.normalize(level, dim=1) for level in pooled], dim=1)
