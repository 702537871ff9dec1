"""A place in a feature space without weights: oriented edges.

Shape letters: N crops, O orientations, H W pixels, D features.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gcdis_ray.backbones.frozen import FrozenBackbone


class Wavelet(FrozenBackbone):
    """Oriented edge energy, pooled on a grid: a fixed filter bank, nothing learned.

    First derivatives of a Gaussian (a steerable wavelet), their energy shared out to eight
    orientations, averaged over the cells of a grid, square-rooted and normalised per
    source, so that contrast and lighting drop out. Sources are the luminance (orientations modulo
    180 degrees: a light object on dark is a dark one on light) and, if masks are given, the mask's
    outline (modulo 360 degrees).
    """

    def __init__(
        self,
        sigmas_px: tuple[float, ...] = (1.5,),
        num_orientations: int = 8,
        grid: int = 5,
    ) -> None:
        super().__init__()
        self.sigmas_px, self.grid = sigmas_px, grid
        angle = 2 * math.pi * torch.arange(num_orientations) / num_orientations
        self.register_buffer("angle_O", angle, persistent=False)
        for n, sigma in enumerate(sigmas_px):
            self.register_buffer(f"filters_{n}", _gaussian_derivatives(sigma), persistent=False)

    def features(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        light = images_N3HW.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        sources = [((images_N3HW * light).sum(1, keepdim=True), 2)]
        if masks_N1HW is not None:
            sources.append((masks_N1HW.float() / 255, 1))
        parts = []
        for source_N1HW, symmetry in sources:
            for n in range(len(self.sigmas_px)):
                filters = self.get_buffer(f"filters_{n}")
                parts.append(F.normalize(self._energy(source_N1HW, filters, symmetry), dim=1))
        return torch.cat(parts, dim=1)

    def _energy(self, source_N1HW: Tensor, filters_2133: Tensor, symmetry: int) -> Tensor:
        """Square root of the energy per orientation and grid cell, (N, O * grid * grid)."""
        edge = filters_2133.shape[-1] // 2
        padded = F.pad(source_N1HW, (edge,) * 4, mode="replicate")
        across, down = F.conv2d(padded, filters_2133).unbind(dim=1)
        strength, direction = torch.hypot(across, down), torch.atan2(down, across) * symmetry
        angle = self.get_buffer("angle_O")
        share = torch.cos(direction[:, None] - angle.view(1, -1, 1, 1)).clamp(min=0)
        energy = strength[:, None] * share ** (len(angle) // 2)
        return F.adaptive_avg_pool2d(energy, self.grid).flatten(1).sqrt()


def _gaussian_derivatives(sigma_px: float) -> Tensor:
    """Derivatives of a Gaussian across and down, (2, 1, k, k), k = 2 * ceil(3 sigma) + 1."""
    reach = math.ceil(3 * sigma_px)
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    bell = torch.exp(-(x**2) / (2 * sigma_px**2))
    bell = bell / bell.sum()
    slope = -x / sigma_px**2 * bell
    across = -bell[:, None] * slope[None, :]  # correlation: positive where it gets lighter
    return torch.stack([across, across.T])[:, None]
