"""Directions of most variance, found in one reading of the points.

Shape letters: N points, D dimensions, C axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 1 << 16  # points whose float64 copy exists at a time


def principal_axes(points_ND: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """The mean of the points, and the ``dims`` directions in which they differ most from it.

    Returns:
        mean (D,) of the points' type; axes (D, C) float64, orthogonal unit columns by rising
        variance, C = ``dims``, or D if that is smaller. Where fewer than C directions have any
        variance, the others are arbitrary.
    """
    mean_D = points_ND.mean(dim=0)
    moment_DD = points_ND.new_zeros(len(mean_D), len(mean_D), dtype=torch.float64)
    for block in points_ND.split(_BLOCK):
        centered = (block - mean_D).double()
        moment_DD += centered.T @ centered
    _, axes_DD = torch.linalg.eigh(moment_DD)
    return mean_D, axes_DD[:, -dims:]
