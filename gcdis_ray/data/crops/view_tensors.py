"""Views as batched tensor operations, for a GPU: crops go up as bytes and never come back.

Also the reference of :mod:`gcdis_ray.data.crops.view_pixels`, which it equals up to 8-bit rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.data.crops.view_draw import ViewDraw, blur_radius_px


def render_tensors(
    images_N3HW: Tensor, masks_N1HW: Tensor, draw: ViewDraw, side_px: int, blur_max_px: float
) -> tuple[Tensor, Tensor]:
    """Geometry, colour and blur of every view, on the device of the crops.

    Args:
        images_N3HW: uint8. masks_N1HW: uint8, 0 or 255.

    Returns:
        images (N, 3, side, side) float32 in 0 to 255; masks (N, 1, side, side) float32, 0 or 1.
    """
    device = images_N3HW.device
    images = images_N3HW.float()
    if draw.recolor is not None:
        affine = draw.recolor.affine(images.mean(dim=(2, 3)))
        flat = torch.baddbmm(affine[:, :, 3:], affine[:, :, :3], images.flatten(2))
        images = flat.view_as(images).clamp(0, 255)
    size = (side_px, side_px)
    grid = F.affine_grid(draw.affine_N23.to(device), [len(images), 1, *size], align_corners=False)
    if draw.bend_N255 is not None:
        bend = F.interpolate(draw.bend_N255.to(device), size, mode="bicubic", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1)
    both = torch.cat([images, masks_N1HW.float()], dim=1)
    both = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
    images, masks = both[:, :3], (both[:, 3:] > 127.5).float()
    if draw.blur_px_N is not None:
        images = _blur(images, draw.blur_px_N.to(device), blur_radius_px(blur_max_px))
    return images, masks


def _blur(images: Tensor, sigma_px_N: Tensor, radius: int) -> Tensor:
    """Gaussian, one standard deviation per crop, as shifted sums along each axis."""
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    sigma = sigma_px_N.clamp(min=0.01)  # of the centre tap alone
    taps = torch.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, side = F.pad(images, padding, mode="replicate"), images.shape[axis]
        images = torch.zeros_like(images)
        for k in range(2 * radius + 1):
            images += taps[:, k].view(-1, 1, 1, 1) * padded.narrow(axis, k, side)
    return images
