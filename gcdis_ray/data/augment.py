"""Random views of crops with their masks, as batched tensor operations.

Every random number comes from the generator given, so a view is a pure function of its seed.
Shape letters: N crops, H W pixels of the stored crop, S side of the view.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from gcdis_ray.data.augment_config import AugmentConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)
_TRIES = 4  # random windows drawn per crop before the whole crop is shown
_PROBE_PX = 16  # side of the grid on which a window's share of the mask is measured


def normalize(images_N3HW: Tensor) -> Tensor:
    """Images in [0, 1] to zero mean and unit deviation per channel (ImageNet statistics)."""
    mean = torch.tensor(IMAGENET_MEAN, device=images_N3HW.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images_N3HW.device).view(1, 3, 1, 1)
    return (images_N3HW - mean) / std


def with_mask(images_N3HW: Tensor, masks_N1HW: Tensor) -> Tensor:
    """Images with their mask as a fourth channel, -1 outside and 1 inside; (N, 4, H, W)."""
    return torch.cat([images_N3HW, 2 * masks_N1HW - 1], dim=1)


def wobble(masks_N1HW: Tensor, probability: float, generator: Generator) -> Tensor:
    """Masks grown or shrunk by up to a pixel, as a predicted mask may be; 0 or 1."""
    num = len(masks_N1HW)
    soft = F.avg_pool2d(masks_N1HW, 3, stride=1, padding=1, count_include_pad=False)
    level = _uniform(num, 0.1, 0.9, generator).view(-1, 1, 1, 1)
    hit = _chance(num, probability, generator).view(-1, 1, 1, 1)
    return torch.where(hit, (soft > level).float(), masks_N1HW)


def plain_view(images_N3HW: Tensor, masks_N1HW: Tensor, side_px: int) -> tuple[Tensor, Tensor]:
    """The un-augmented view: resized to ``side_px``, normalised; mask 0 or 1.

    Args:
        images_N3HW: uint8. masks_N1HW: uint8, 0 or 255.
    """
    size = (side_px, side_px)
    images = images_N3HW.float() / 255
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    masks = F.interpolate((masks_N1HW > 127).float(), size, mode="nearest-exact")
    return normalize(images.clamp(0, 1)), masks


def random_view(
    images_N3HW: Tensor,
    masks_N1HW: Tensor,
    side_px: int,
    config: AugmentConfig,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """One random view per crop: window, flip, rotation and warp; then colour, blur and noise.

    Args:
        images_N3HW: uint8. masks_N1HW: uint8, 0 or 255.

    Returns:
        images (N, 3, S, S) float32, normalised; masks (N, 1, S, S) float32, 0 or 1.
    """
    images, masks = images_N3HW.float() / 255, (masks_N1HW > 127).float()
    if config.background:
        images = _swap_background(images, masks, config.background, generator)
    theta_N23 = _windows(masks, config, generator)
    grid = F.affine_grid(theta_N23, [len(images), 1, side_px, side_px], align_corners=False)
    if config.elastic:
        grid = grid + _warp(len(images), side_px, config.elastic, generator)
    both = F.grid_sample(
        torch.cat([images, masks], dim=1), grid, padding_mode="reflection", align_corners=False
    )
    views, masks = both[:, :3], (both[:, 3:] > 0.5).float()
    views = _recolor(views, config, generator)
    if config.blur:
        views = _blur(views, config.blur, config.blur_max_px, generator)
    if config.noise:
        level = _uniform(len(views), 0.0, config.noise, generator).view(-1, 1, 1, 1)
        views = views + level * torch.randn(views.shape, generator=generator)
    if config.erase:
        views = _erase(views, config.erase, generator)
    return normalize(views.clamp(0, 1)), masks


def _uniform(num: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=generator)


def _chance(num: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(num, generator=generator) < probability


def _windows(masks_N1HW: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Affine maps (N, 2, 3) from view to crop coordinates that keep enough of every mask.

    The first of a few random windows that shows ``min_mask`` of the mask's area is taken, else
    the whole crop, upright.
    """
    num = len(masks_N1HW)
    total_N = masks_N1HW.mean(dim=(1, 2, 3))
    chosen = torch.eye(2, 3).repeat(num, 1, 1)
    open_N = torch.ones(num, dtype=torch.bool)
    for _ in range(_TRIES):
        theta = _random_affine(num, config, generator)  # drawn for all: same stream for any mask
        grid = F.affine_grid(theta, [num, 1, _PROBE_PX, _PROBE_PX], align_corners=False)
        seen = F.grid_sample(masks_N1HW, grid, padding_mode="zeros", align_corners=False)
        area_N = (theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]).abs()
        kept_N = seen.mean(dim=(1, 2, 3)) * area_N
        take_N = open_N & (kept_N >= config.min_mask * total_N)
        chosen = torch.where(take_N[:, None, None], theta, chosen)
        open_N &= ~take_N
    return chosen


def _random_affine(num: int, config: AugmentConfig, generator: Generator) -> Tensor:
    side = _uniform(num, config.min_area, 1.0, generator).sqrt()
    stretch = torch.exp(_uniform(num, -0.5, 0.5, generator) * math.log(config.max_aspect))
    wide, high = (side * stretch).clamp(max=1.0), (side / stretch).clamp(max=1.0)
    angle = _uniform(num, -1, 1, generator) * math.radians(config.rotation_deg)
    mirror = 1.0 - 2.0 * (_chance(num, 0.5, generator) & config.flip).float()
    shift_x = _uniform(num, -1, 1, generator) * (1 - wide)
    shift_y = _uniform(num, -1, 1, generator) * (1 - high)
    cos, sin = torch.cos(angle), torch.sin(angle)
    slant = _uniform(num, -1, 1, generator) * config.shear  # x follows y before the turn
    left, right = wide * mirror, high
    rows = [
        *(cos * left, (cos * slant - sin) * right, shift_x),
        *(sin * left, (sin * slant + cos) * right, shift_y),
    ]
    return torch.stack(rows, dim=1).view(num, 2, 3)


def _warp(num: int, side_px: int, strength: float, generator: Generator) -> Tensor:
    """Smooth displacement fields (N, S, S, 2) in units of half a side."""
    coarse = (torch.rand(num, 2, 5, 5, generator=generator) * 2 - 1) * 2 * strength
    fine = F.interpolate(coarse, (side_px, side_px), mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _recolor(images: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Jitter, grey and negative: all linear in a pixel's colour, so one 3x3 matrix per crop."""
    num = len(images)
    jitter = _chance(num, config.jitter, generator).float()

    def factor(strength: float) -> Tensor:
        return 1 + jitter * strength * _uniform(num, -1, 1, generator)

    brightness, contrast = factor(config.brightness), factor(config.contrast)
    saturation = factor(config.saturation)
    turn = jitter * config.hue * _uniform(num, -1, 1, generator)
    saturation = torch.where(_chance(num, config.grey, generator), 0.0, saturation)
    sign = 1 - 2 * _chance(num, config.invert, generator).float()
    grey_33 = torch.tensor(_GREY).expand(3, 3)
    matrix = saturation.view(-1, 1, 1) * _hue_rotation(turn)
    matrix = matrix + (1 - saturation).view(-1, 1, 1) * grey_33
    matrix = matrix * (sign * brightness * contrast).view(-1, 1, 1)
    level = (images.mean(dim=(2, 3)) @ torch.tensor(_GREY)) * brightness
    shift = (1 - contrast) * level * sign + (sign < 0).float()
    colored = torch.bmm(matrix, images.flatten(2)).view_as(images)
    return (colored + shift.view(-1, 1, 1, 1)).clamp(0, 1)


def _hue_rotation(turn_N: Tensor) -> Tensor:
    """Rotations about the grey axis, (N, 3, 3)."""
    angle = (2 * math.pi * turn_N).view(-1, 1, 1)
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.cos(angle) * (torch.eye(3) - axis) + axis + torch.sin(angle) * cross


def _blur(images: Tensor, probability: float, most_px: float, generator: Generator) -> Tensor:
    """Gaussian, one standard deviation per crop, as shifted sums along each axis."""
    num = len(images)
    sigma = _uniform(num, 0.1, max(most_px, 0.1), generator)
    sigma = torch.where(_chance(num, probability, generator), sigma, 0.01)
    radius = max(1, math.ceil(2 * most_px))
    offsets = torch.arange(-radius, radius + 1)
    taps = torch.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, side = F.pad(images, padding, mode="replicate"), images.shape[axis]
        images = torch.zeros_like(images)
        for k in range(2 * radius + 1):
            images += taps[:, k].view(-1, 1, 1, 1) * padded.narrow(axis, k, side)
    return images


def _erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    """A rectangle of one random grey, up to half of each side, anywhere."""
    num, side = len(images), images.shape[-1]
    extent = _uniform(2 * num, 0.1, 0.5, generator).view(2, num, 1)
    start = torch.rand(2, num, 1, generator=generator) * (1 - extent)
    position = (torch.arange(side) + 0.5) / side
    inside = (position >= start) & (position < start + extent)
    hit = _chance(num, probability, generator)
    hole = inside[0][:, :, None] & inside[1][:, None, :] & hit[:, None, None]
    grey = torch.rand(num, 1, 1, 1, generator=generator)
    return torch.where(hole[:, None], grey, images)


def _swap_background(
    images: Tensor, masks: Tensor, probability: float, generator: Generator
) -> Tensor:
    """Pixels outside the (slightly grown) mask from another crop of the batch."""
    num = len(images)
    order = torch.randperm(num, generator=generator)
    grown = F.max_pool2d(masks, 3, stride=1, padding=1)
    keep = (grown > 0.5) | ~_chance(num, probability, generator).view(-1, 1, 1, 1)
    return torch.where(keep, images, images[order])
