"""Attention loss of GCDIS: saliency maps shall show the object's mask.

Shape letters: N crops, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def contour_weights(mask_N1HW: Tensor, weight: float) -> Tensor:
    """1 everywhere, ``weight`` on contour pixels (3x3 Laplacian of the mask not zero).

    The outermost ring of pixels keeps weight 1: nothing beyond it tells contour from border.
    """
    if min(mask_N1HW.shape[-2:]) < 3:
        return torch.ones_like(mask_N1HW)
    sums = F.avg_pool2d(mask_N1HW, 3, stride=1, divisor_override=1)  # unpadded: no outer ring
    edge = (sums - 9 * mask_N1HW[:, :, 1:-1, 1:-1]).abs() > 0.5  # the Laplacian, 8 around -8
    weights = torch.ones_like(mask_N1HW)
    weights[:, :, 1:-1, 1:-1] = torch.where(edge, weight, 1.0)
    return weights


def attention_loss(
    saliencies: Sequence[Tensor], mask_N1HW: Tensor, contour: Sequence[float]
) -> Tensor:
    """Mean over stages of mean_p w(p) (S(p) - M(p))^2, GCDIS L_att.

    Args:
        saliencies: S per stage, (N, 1, h, w) in [0, 1].
        mask_N1HW: M at crop size, 0 or 1; nearest-resized to each stage.
        contour: weight of contour pixels per stage; 0.25, 0.5, 0.75, 1 in the paper: fine stages
            forgive a pseudo-mask's border.
    """
    terms = []
    for saliency, weight in zip(saliencies, contour, strict=True):
        mask = F.interpolate(mask_N1HW, saliency.shape[-2:], mode="nearest-exact")
        terms.append((contour_weights(mask, weight) * (saliency.float() - mask) ** 2).mean())
    return torch.stack(terms).mean()
