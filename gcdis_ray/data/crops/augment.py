"""Random views of crops with their masks.

Every random number comes from the generator given, so a view is a pure function of its seed.
Shape letters: N crops, H W pixels of the stored crop, S side of the view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.data.crops.view_draw import Erasing, chance, draw_views, uniform
from gcdis_ray.data.crops.view_pixels import render_pixels
from gcdis_ray.data.crops.view_tensors import render_tensors

if TYPE_CHECKING:
    from gcdis_ray.data.crops.augment_config import CropAugmentConfig


def normalize(images_N3HW: Tensor) -> Tensor:
    """Images in [0, 1] to zero mean and unit deviation per channel (ImageNet statistics)."""
    mean = torch.tensor(IMAGENET_MEAN, device=images_N3HW.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images_N3HW.device).view(1, 3, 1, 1)
    return (images_N3HW - mean) / std


def with_mask(images_N3HW: Tensor, masks_N1HW: Tensor) -> Tensor:
    """Images with their mask as a fourth channel, -1 outside and 1 inside; (N, 4, H, W)."""
    return torch.cat([images_N3HW, 2 * masks_N1HW - 1], dim=1)


def wobble(masks_N1HW: Tensor, probability: float, generator: Generator) -> Tensor:
    """Masks grown or shrunk by up to a pixel, as a predicted mask may be; 0 or 1.

    Args:
        generator: of the CPU, wherever the masks are.
    """
    if probability == 0:
        return masks_N1HW
    num, device = len(masks_N1HW), masks_N1HW.device
    level = uniform(num, 0.1, 0.9, generator).view(-1, 1, 1, 1).to(device)
    hit = chance(num, probability, generator).view(-1, 1, 1, 1).to(device)
    soft = F.avg_pool2d(masks_N1HW, 3, stride=1, padding=1, count_include_pad=False)
    return torch.where(hit, (soft > level).float(), masks_N1HW)


def plain_view(images_N3HW: Tensor, masks_N1HW: Tensor, side_px: int) -> tuple[Tensor, Tensor]:
    """The un-augmented view: resized to ``side_px``, normalised; mask 0 or 1.

    Args:
        images_N3HW: uint8. masks_N1HW: uint8, 0 or 255.
    """
    size = (side_px, side_px)
    images = images_N3HW.contiguous().float() / 255
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    masks = F.interpolate((masks_N1HW > 127).float(), size, mode="nearest-exact")
    return normalize(images.clamp(0, 1)), masks


def random_view(
    images_N3HW: Tensor,
    masks_N1HW: Tensor,
    side_px: int,
    config: CropAugmentConfig,
    generator: Generator,
    there: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """One random view per crop: colour, window, flip, rotation and warp; then blur and noise.

    Args:
        images_N3HW: uint8 on the CPU. masks_N1HW: uint8, 0 or 255.
        generator: of the CPU; draws everything but noise, which is seeded by it where it is made.
        there: images and masks once more, on the device where views are wanted and rendered; the
            CPU if not given.

    Returns:
        images (N, 3, S, S) float32, normalised; masks (N, 1, S, S) float32, 0 or 1; on that device.
    """
    images, masks = there or (images_N3HW, masks_N1HW)
    device = images.device
    if config.background:
        images = _swap_background(images, masks, config.background, generator)
    draw = draw_views(masks_N1HW, config, generator, side_px)
    if device.type == "cpu":
        views = render_pixels(images, masks, draw, side_px, config.blur_max_px)
        images, masks = views[:, :3].float(), views[:, 3:].float()
    else:
        images, masks = render_tensors(images, masks, draw, side_px, config.blur_max_px)
    if draw.noise_N is not None:
        source = Generator(device).manual_seed(draw.noise_seed)
        grain = torch.randn(images.shape, generator=source, device=device)
        level = 255 * draw.noise_N.view(-1, 1, 1, 1).to(device)
        images = images.add_(grain.mul_(level)).clamp_(0, 255)
    if draw.erasing is not None:
        images = _erase(images, draw.erasing)
    return normalize_bytes(images), masks


def normalize_bytes(images: Tensor) -> Tensor:
    """:func:`normalize` for floats in 0 to 255, in place: memory traffic is what it costs."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(1, 3, 1, 1)
    return images.mul_(1 / (255 * std)).sub_(mean / std)


def _erase(images: Tensor, erasing: Erasing) -> Tensor:
    device, side = images.device, images.shape[-1]
    position = (torch.arange(side, device=device) + 0.5) / side
    start, extent = erasing.start_2N.to(device)[..., None], erasing.extent_2N.to(device)[..., None]
    inside = (position >= start) & (position < start + extent)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    grey = 255 * erasing.grey_N.view(-1, 1, 1, 1).to(device)
    return torch.where(hole[:, None], grey, images)


def _swap_background(
    images: Tensor, masks: Tensor, probability: float, generator: Generator
) -> Tensor:
    """Pixels outside the (slightly grown) mask from another crop of the batch."""
    num, device = len(images), images.device
    order = torch.randperm(num, generator=generator).to(device)
    grown = F.max_pool2d((masks > 127).float(), 3, stride=1, padding=1)
    swaps = chance(num, probability, generator).view(-1, 1, 1, 1).to(device)
    return torch.where((grown > 0.5) | ~swaps, images, images[order])
