"""The part of an encoder that stays as it is: crops in, one flat row of numbers a crop out.

Flat, so that whatever the network, rows can be stored, drawn from and handed to what learns.

Shape letters: N crops, S side of a crop, C channels, h w cells of a map, D numbers of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.backbones.frozen import FrozenBackbone


class Front(nn.Module):
    """Never trained: always in eval mode, and no gradient passes."""

    def __init__(self) -> None:
        super().__init__()
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images_N3SS: Tensor, masks_N1SS: Tensor) -> Tensor:
        """Args:
            images_N3SS: RGB in [0, 1].
            masks_N1SS: 0 or 1.

        Returns:
            (N, D) float32.
        """
        return self.rows(images_N3SS, masks_N1SS).float()

    def rows(self, images_N3SS: Tensor, masks_N1SS: Tensor) -> Tensor:
        raise NotImplementedError


class VectorFront(Front):
    """All of a body: its features, rows of length 1.

    Args:
        use_mask: features are those of the object.
    """

    def __init__(self, body: FrozenBackbone, *, use_mask: bool) -> None:
        super().__init__()
        self.body, self._use_mask = body.eval().requires_grad_(False), use_mask

    def rows(self, images_N3SS: Tensor, masks_N1SS: Tensor) -> Tensor:
        masks = (255 * masks_N1SS).to(torch.uint8) if self._use_mask else None
        return F.normalize(self.body.features(images_N3SS, masks), dim=1)


class MapFront(Front):
    """The first blocks of a body: what enters the others and, if the mask counts, how much of each
    cell of the last map it covers. :class:`~gcdis_ray.models.body_encoder.TailEncoder` takes it
    apart again.

    Args:
        head: the first blocks.
        mask_hw: cells of the last map; None: the mask does not count.
    """

    def __init__(self, head: nn.Module, mask_hw: tuple[int, int] | None) -> None:
        super().__init__()
        self.head, self._mask_hw = head.eval().requires_grad_(False), mask_hw

    def rows(self, images_N3SS: Tensor, masks_N1SS: Tensor) -> Tensor:
        parts = [self.head(images_N3SS).flatten(1)]
        if self._mask_hw is not None:
            parts.append(F.adaptive_avg_pool2d(masks_N1SS, self._mask_hw).flatten(1))
        return torch.cat(parts, dim=1)
