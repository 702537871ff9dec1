"""From a map of features to one vector an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pool(map_NCHW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
    """Mean of a feature map, over the object if masks (uint8, 0 or 255) are given: (N, C).

    A cell counts by the share of it that the mask covers; an object without any pixel counts
    everywhere.
    """
    if masks_N1HW is None:
        return map_NCHW.mean(dim=(2, 3))
    weight = F.adaptive_avg_pool2d(masks_N1HW.float() / 255, (map_NCHW.shape[2], map_NCHW.shape[3]))
    total = weight.sum(dim=(2, 3), keepdim=True)
    weight = torch.where(total > 0, weight, torch.ones_like(weight))
    return (map_NCHW * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
