"""What is random about views of crops, drawn ahead of any pixel: small tensors on the CPU.

A draw is a pure function of the generator, the masks and the configuration, so the two renderers
(:mod:`~gcdis_ray.data.crops.view_pixels`, :mod:`~gcdis_ray.data.crops.view_tensors`) show the same.
Shape letters: N crops, T windows tried per crop, C cells of a coarse mask, H W pixels of a crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from gcdis_ray.data.crops.augment_config import CropAugmentConfig

GREY = (0.299, 0.587, 0.114)
_TRIES = 4  # random windows drawn per crop before the whole crop is shown
_CELLS = 16  # side of the grid on which a window's share of the mask is measured


@dataclass(frozen=True)
class Recolor:
    """A colour x becomes matrix x + pull * level + offset, all in 0 to 255, then is clamped;
    level is the crop's mean grey: contrast pulls towards it."""

    matrix_N33: Tensor
    pull_N: Tensor
    offset_N: Tensor

    def affine(self, mean_N3: Tensor) -> Tensor:
        """Matrix and shift as one, (N, 3, 4).

        Args:
            mean_N3: mean colour of every crop, float32, on the device wanted.
        """
        matrix, pull, offset, grey = (
            t.to(mean_N3.device)
            for t in (self.matrix_N33, self.pull_N, self.offset_N, torch.tensor(GREY))
        )
        shift = pull * (mean_N3 @ grey) + offset
        return torch.cat([matrix, shift.view(-1, 1, 1).expand(-1, 3, 1)], dim=2)


@dataclass(frozen=True)
class Erasing:
    """Rectangles of one grey; zero width where none is wanted."""

    start_2N: Tensor  # rows, then columns; share of the view's side
    extent_2N: Tensor
    grey_N: Tensor


@dataclass(frozen=True)
class ViewDraw:
    """Everything random about one view of each crop. None: not asked for."""

    affine_N23: Tensor  # from the view's coordinates to the crop's, both -1 to 1
    upright: bool  # affine_N23 are windows of whole crop pixels, perhaps mirrored
    bend_N255: Tensor | None  # coarse displacements (x, y), in half sides
    recolor: Recolor | None
    blur_px_N: Tensor | None  # standard deviations; 0: none
    noise_N: Tensor | None  # standard deviations, of the range 0 to 1
    noise_seed: int
    erasing: Erasing | None


def draw_views(
    masks_N1HW: Tensor, config: CropAugmentConfig, generator: Generator, side_px: int
) -> ViewDraw:
    """Draw one view per crop.

    Args:
        masks_N1HW: uint8, 0 or 255, on the CPU.
        generator: of the CPU.
        side_px: side of the views, in whose pixels blur is measured.
    """
    num = len(masks_N1HW)
    upright = not (config.rotation_deg or config.shear or config.elastic)
    draw = ViewDraw(
        affine_N23=_windows(masks_N1HW, config, upright, generator),
        upright=upright,
        bend_N255=_bend(num, config.elastic, generator) if config.elastic else None,
        recolor=_recolor(num, config, generator) if _colors(config) else None,
        blur_px_N=_blur(num, config, generator) if config.blur else None,
        noise_N=uniform(num, 0.0, config.noise, generator) if config.noise else None,
        noise_seed=int(torch.randint(2**62, (), generator=generator)) if config.noise else 0,
        erasing=_erasing(num, config.erase, generator) if config.erase else None,
    )
    return draw


def uniform(num: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=generator)


def chance(num: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(num, generator=generator) < probability


# ---------------------------------------------------------------- geometry


def _windows(
    masks_N1HW: Tensor, config: CropAugmentConfig, upright: bool, generator: Generator
) -> Tensor:
    """Affine maps (N, 2, 3) from view to crop coordinates that keep enough of every mask.

    The first of a few random windows that shows ``min_mask`` of the mask's area is taken, else
    the whole crop, upright.
    """
    num, (height, width) = len(masks_N1HW), masks_N1HW.shape[-2:]
    theta_TN23 = _random_affine(_TRIES * num, config, generator)  # the same stream for any mask
    if upright:
        theta_TN23 = _on_whole_pixels(theta_TN23, height, width)
    theta_TN23 = theta_TN23.view(_TRIES, num, 2, 3)
    chosen = torch.eye(2, 3).repeat(num, 1, 1)
    cells_NC = _coarse(masks_N1HW)
    wanted_N = config.min_mask * cells_NC.sum(dim=1)
    open_N = torch.arange(num)
    for theta_N23 in theta_TN23:
        if len(open_N) == 0:
            break
        fits = _kept(cells_NC[open_N], theta_N23[open_N]) >= wanted_N[open_N]
        chosen[open_N[fits]] = theta_N23[open_N[fits]]
        open_N = open_N[~fits]
    return chosen


def _coarse(masks_N1HW: Tensor) -> Tensor:
    """Share of every cell that the mask fills, (N, C)."""
    size = (_CELLS, _CELLS)
    cells = np.empty((len(masks_N1HW), *size), dtype=np.float32)
    for cell, mask in zip(cells, masks_N1HW[:, 0].numpy(), strict=True):
        cell[:] = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(cells).flatten(1) / 255


def _kept(cells_NC: Tensor, theta_N23: Tensor) -> Tensor:
    """How much of the mask each window shows, (N,): its cells whose centre is in the window."""
    place = (torch.arange(_CELLS) + 0.5) * 2 / _CELLS - 1
    x_C, y_C = place.repeat(_CELLS), place.repeat_interleave(_CELLS)
    a, b, shift_x, c, d, shift_y = theta_N23.flatten(1).T[:, :, None]
    right_NC, down_NC = x_C - shift_x, y_C - shift_y
    area = (a * d - b * c).abs()
    inside_NC = ((d * right_NC - b * down_NC).abs() <= area) & (
        (a * down_NC - c * right_NC).abs() <= area
    )
    return (inside_NC * cells_NC).sum(dim=1)


def _random_affine(num: int, config: CropAugmentConfig, generator: Generator) -> Tensor:
    side = uniform(num, config.min_area, 1.0, generator).sqrt()
    stretch = torch.exp(uniform(num, -0.5, 0.5, generator) * math.log(config.max_aspect))
    wide, high = (side * stretch).clamp(max=1.0), (side / stretch).clamp(max=1.0)
    angle = uniform(num, -1, 1, generator) * math.radians(config.rotation_deg)
    mirror = 1.0 - 2.0 * (chance(num, 0.5, generator) & config.flip).float()
    shift_x = uniform(num, -1, 1, generator) * (1 - wide)
    shift_y = uniform(num, -1, 1, generator) * (1 - high)
    cos, sin = torch.cos(angle), torch.sin(angle)
    slant = uniform(num, -1, 1, generator) * config.shear  # x follows y before the turn
    left, right = wide * mirror, high
    rows = [
        *(cos * left, (cos * slant - sin) * right, shift_x),
        *(sin * left, (sin * slant + cos) * right, shift_y),
    ]
    return torch.stack(rows, dim=1).view(num, 2, 3)


def _on_whole_pixels(theta_N23: Tensor, height: int, width: int) -> Tensor:
    """Upright windows moved to the nearest pixel borders: plain slices of the crop."""
    snapped = theta_N23.clone()
    for axis, size in ((0, width), (1, height)):
        half, middle = theta_N23[:, axis, axis], theta_N23[:, axis, 2]
        start = ((middle - half.abs() + 1) * size / 2).round().clamp(0, size - 1)
        stop = ((middle + half.abs() + 1) * size / 2).round().clamp(max=size)
        stop = torch.maximum(stop, start + 1)
        snapped[:, axis, axis] = (stop - start) / size * half.sign()
        snapped[:, axis, 2] = (start + stop) / size - 1
    return snapped


def _bend(num: int, strength: float, generator: Generator) -> Tensor:
    return (torch.rand(num, 2, 5, 5, generator=generator) * 2 - 1) * 2 * strength


# ---------------------------------------------------------------- colour


def _colors(config: CropAugmentConfig) -> bool:
    return bool(config.jitter or config.grey or config.invert)


def _recolor(num: int, config: CropAugmentConfig, generator: Generator) -> Recolor:
    """Jitter, grey and negative: all linear in a pixel's colour, so one matrix per crop."""
    jitter = chance(num, config.jitter, generator).float()

    def factor(strength: float) -> Tensor:
        return 1 + jitter * strength * uniform(num, -1, 1, generator)

    brightness, contrast = factor(config.brightness), factor(config.contrast)
    saturation = factor(config.saturation)
    turn = jitter * config.hue * uniform(num, -1, 1, generator)
    saturation = torch.where(chance(num, config.grey, generator), 0.0, saturation)
    sign = 1 - 2 * chance(num, config.invert, generator).float()
    matrix = saturation.view(-1, 1, 1) * _hue_rotation(turn)
    matrix = matrix + (1 - saturation).view(-1, 1, 1) * torch.tensor(GREY).expand(3, 3)
    matrix = matrix * (sign * brightness * contrast).view(-1, 1, 1)
    return Recolor(matrix, (1 - contrast) * brightness * sign, 255.0 * (sign < 0))


def _hue_rotation(turn_N: Tensor) -> Tensor:
    """Rotations about the grey axis, (N, 3, 3)."""
    angle = (2 * math.pi * turn_N).view(-1, 1, 1)
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.cos(angle) * (torch.eye(3) - axis) + axis + torch.sin(angle) * cross


# ---------------------------------------------------------------- blur and holes


def _blur(num: int, config: CropAugmentConfig, generator: Generator) -> Tensor:
    sigma = uniform(num, 0.1, max(config.blur_max_px, 0.1), generator)
    return torch.where(chance(num, config.blur, generator), sigma, 0.0)


def blur_radius_px(most_px: float) -> int:
    """Reach of the Gaussian's taps for a largest standard deviation."""
    return max(1, math.ceil(2 * most_px))


def _erasing(num: int, probability: float, generator: Generator) -> Erasing:
    """Up to half of each side, anywhere."""
    extent = uniform(2 * num, 0.1, 0.5, generator).view(2, num)
    start = torch.rand(2, num, generator=generator) * (1 - extent)
    extent = extent * chance(num, probability, generator)
    return Erasing(start, extent, torch.rand(num, generator=generator))
