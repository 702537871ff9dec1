"""Both renderers show the same views; draws depend on the generator alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.view_draw import draw_views
from gcdis_ray.data.crops.view_pixels import render_pixels
from gcdis_ray.data.crops.view_tensors import render_tensors

KINDS = {
    "windows": dict(),
    "no_color": dict(jitter=0.0, grey=0.0),
    "negative": dict(invert=0.5, hue=0.5, grey=0.3),
    "turned": dict(rotation_deg=25.0, shear=0.2),
    "bent": dict(rotation_deg=10.0, elastic=0.08),
    "blurred": dict(blur=1.0, blur_max_px=1.5),
}


def smooth_crops(num: int, side: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    images = np.empty((num, side, side, 3), np.uint8)
    masks = np.zeros((num, side, side), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        coarse = rng.integers(30, 225, (5, 5, 3)).astype(np.uint8)
        image[:] = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
        cv2.circle(mask, (side // 2, side // 3), side // 4, 255, -1)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None]


def settings(**changes) -> CropAugmentConfig:
    return CropAugmentConfig.model_validate({"blur": 0.0, "min_area": 0.4, **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [24, 64])
def test_bytes_and_tensors_show_the_same(kind, side):
    images, masks = smooth_crops(24, 40)
    config = settings(**KINDS[kind])
    draw = draw_views(masks, config, torch.Generator().manual_seed(1), side)
    fast = render_pixels(images, masks, draw, side, config.blur_max_px)
    exact, shapes = render_tensors(images, masks, draw, side, config.blur_max_px)
    off = (fast[:, :3].float() - exact).abs()
    # bytes are rounded twice; upright windows end where their slice ends, tensors look beyond
    assert off.mean() < 0.7
    assert off[:, :, 3:-3, 3:-3].max() <= 8
    assert (fast[:, 3:].float() - shapes).abs().mean() < 0.01
    assert exact.std(dim=(2, 3)).min() > 1  # there is something to compare


def test_a_crop_is_drawn_alike_whatever_stands_beside_it():
    """Masks steer which window is taken, never what is drawn for another crop."""
    _, masks = smooth_crops(8, 40)
    other = masks.clone()
    other[:4] = 0
    other[:4, :, :3, :3] = 255
    config = settings(min_mask=0.8)
    a, b = (draw_views(m, config, torch.Generator().manual_seed(2), 32) for m in (masks, other))
    assert torch.equal(a.affine_N23[4:], b.affine_N23[4:])
    assert not torch.equal(a.affine_N23[:4], b.affine_N23[:4])


def test_upright_windows_are_slices_that_keep_the_mask():
    _, masks = smooth_crops(64, 41)
    draw = draw_views(masks, settings(min_mask=0.5), torch.Generator().manual_seed(3), 32)
    assert draw.upright
    half, middle = draw.affine_N23[:, (0, 1), (0, 1)].abs(), draw.affine_N23[:, :, 2]
    for corner in (middle - half, middle + half):
        pixel = (corner + 1) * 41 / 2
        torch.testing.assert_close(pixel, pixel.round(), atol=1e-4, rtol=0)
        assert pixel.min() >= -1e-4
        assert pixel.max() <= 41 + 1e-4
    for mask, low, high in zip(masks[:, 0], middle - half, middle + half, strict=True):
        (x0, y0), (x1, y1) = (((c + 1) * 41 / 2).round().int().tolist() for c in (low, high))
        assert mask[y0:y1, x0:x1].sum() >= 0.4 * mask.sum()  # measured on a grid of 16


def test_switched_off_parts_are_not_drawn():
    _, masks = smooth_crops(2, 20)
    draw = draw_views(masks, settings(jitter=0, grey=0), torch.Generator().manual_seed(0), 16)
    assert draw.recolor is draw.blur_px_N is draw.noise_N is draw.erasing is draw.bend_N255 is None
