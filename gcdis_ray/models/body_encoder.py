"""Encoders on a body of timm: what of it learns, and how it becomes features.

Each gives ``(features (N, F), saliencies)``, as :class:`~gcdis_ray.models.encoder.ResNetEncoder`
does. A body stays in eval mode while it learns: the statistics of its batch norms are of many more
images than a step has crops.

Shape letters: N crops, S side of a crop, C channels, h w cells of the last map, D numbers of a row,
F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import Backbone, Tail
from gcdis_ray.backbones.frozen import FeatureKind, joined_features
from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.models.encoder import AttentionOf, ResNetEncoder


class RowEncoder(nn.Module):
    """Nothing learns: rows of :class:`~gcdis_ray.models.front.VectorFront` are the features."""

    attended: tuple[int, ...] = ()

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, rows_NF: Tensor) -> tuple[Tensor, list[Tensor]]:
        return rows_NF, []


class BodyEncoder(nn.Module):
    """A body in eval mode whatever is around it."""

    attended: tuple[int, ...] = ()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, child in self.named_children():
            child.train(mode and name == "attention")
        return self


class TailEncoder(BodyEncoder):
    """The last blocks of a body, on rows of :class:`~gcdis_ray.models.front.MapFront`.

    Args:
        in_shape: of what enters the tail, without N.
        mask_hw: cells of the last map, as the front has them; None: the mask does not count.
        kind: of features.
    """

    def __init__(
        self,
        tail: Tail,
        in_shape: Sequence[int],
        mask_hw: Sequence[int] | None,
        kind: FeatureKind,
        num_features: int,
    ) -> None:
        super().__init__()
        self.tail, self.num_features = tail, num_features
        self._in_shape, self._mask_hw = tuple(in_shape), mask_hw
        self._kind: FeatureKind = kind
        self.train()

    def forward(self, rows_ND: Tensor) -> tuple[Tensor, list[Tensor]]:
        size, masks_N1hw = math.prod(self._in_shape), None
        if self._mask_hw is not None:
            masks_N1hw = 255 * rows_ND[:, size:].unflatten(1, (1, *self._mask_hw))
        seen = self.tail.tokens(rows_ND[:, :size].unflatten(1, self._in_shape))
        return joined_features(*seen, masks_N1hw, self._kind), []


class WholeEncoder(BodyEncoder):
    """All of a body, on crops.

    Args:
        use_mask: crops have their mask as a fourth channel, and features are those of the object.
        attention: makes the gate after every stage of a CNN; None: none. A gate should start open:
            trained layers do not know maps that are muted.
    """

    def __init__(
        self,
        body: Backbone,
        kind: FeatureKind,
        num_features: int,
        *,
        use_mask: bool,
        attention: AttentionOf | None = None,
    ) -> None:
        super().__init__()
        self.body, self.num_features = body, num_features
        self._kind: FeatureKind = kind
        self._use_mask = use_mask
        self.attended = tuple(range(len(body.stages))) if attention else ()
        self.attention = nn.ModuleList(
            attention(stage, body.stages[stage].channels) for stage in self.attended if attention
        )
        self.train()

    def forward(self, images_NCSS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args:
        images_NCSS: normalised by ImageNet's statistics; then, with ``use_mask``, -1 outside the
            object and 1 inside.
        """
        saliencies: list[Tensor] = []

        def gate(stage: int, map_NCHW: Tensor) -> Tensor:
            out, saliency = self.attention[stage](map_NCHW)
            saliencies.append(saliency)
            return out

        masks_N1SS = 127.5 * (images_NCSS[:, 3:] + 1) if self._use_mask else None
        images_N3SS = unnormalised(images_NCSS[:, :3])
        if self.attended:
            class_NC, map_NChw = None, self.body(images_N3SS, gate)
        else:
            class_NC, map_NChw = self.body.tokens(images_N3SS)
        return joined_features(class_NC, map_NChw, masks_N1SS, self._kind), saliencies


Encoder = ResNetEncoder | RowEncoder | TailEncoder | WholeEncoder


def unnormalised(images_N3HW: Tensor) -> Tensor:
    """RGB in [0, 1] of images normalised by ImageNet's statistics."""
    mean, std = (
        torch.tensor(values, device=images_N3HW.device).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return images_N3HW * std + mean
