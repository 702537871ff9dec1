"""Sizes the net sees, and masks seen through boxes back in the image."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.instances.net_pixels import fitted_size, mask_in_image, paste, resized
from gcdis_ray.masks.coco_rle import decode


@pytest.mark.parametrize(
    ("size", "sides", "expected"),
    [
        ((480, 640), (240, 1000), (240, 320)),
        ((480, 640), (480, 320), (240, 320)),
        ((640, 480), (120, 1000), (160, 120)),
        ((128, 128), (128, 192), (128, 128)),
    ],
)
def test_fitted_size(size, sides, expected):
    assert fitted_size(*size, sides) == expected


def test_resized():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 200
    assert resized(pixels, (8, 8)) is pixels
    assert resized(pixels, (4, 4))[0, :, 0].tolist() == [0, 0, 200, 200]


def _slow_paste(mask, box, height, width):
    """One pixel at a time."""
    side = len(mask)
    x0, y0, x1, y1 = (float(v) for v in box)
    full = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if not (x0 < x + 0.5 < x1 and y0 < y + 0.5 < y1):
                continue
            u = min(max((x + 0.5 - x0) / (x1 - x0) * side - 0.5, 0), side - 1)
            v = min(max((y + 0.5 - y0) / (y1 - y0) * side - 0.5, 0), side - 1)
            i, j = min(int(v), side - 2), min(int(u), side - 2)
            a, b = v - i, u - j
            value = (1 - a) * ((1 - b) * mask[i][j] + b * mask[i][j + 1]) + a * (
                (1 - b) * mask[i + 1][j] + b * mask[i + 1][j + 1]
            )
            full[y, x] = value >= 0.5
    return full


@examples(40)
@given(seed=st.integers(0, 10**6))
def test_paste_equals_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0.1, 0.2, 0.85, 0.97], (5, 5)).astype(np.float32)
    corner = rng.uniform(0, 15, 2)
    box = np.concatenate([corner, corner + rng.uniform(0.3, 14, 2)]).clip(0, [24, 18, 24, 18])
    window, x0, y0 = paste(mask, box.astype(np.float32), 18, 24)
    full = np.zeros((18, 24), bool)
    full[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window
    slow = _slow_paste(mask.tolist(), box.astype(np.float32), 18, 24)
    assert np.mean(full != slow) < 0.005  # values that are 0.5 up to rounding


def test_paste_of_a_full_mask_is_its_box():
    window, x0, y0 = paste(np.ones((7, 7), np.float32), np.array([3.0, 4, 9, 8]), 20, 20)
    assert (x0, y0, window.shape, window.all()) == (3, 4, (4, 6), True)


def test_mask_in_the_full_image():
    rle = mask_in_image(np.ones((7, 7), np.float32), np.array([3.0, 4, 9, 8]), 20, 24)
    want = np.zeros((20, 24), bool)
    want[4:8, 3:9] = True
    assert rle is not None
    assert (decode(rle, 20, 24) == want).all()


@pytest.mark.parametrize("box", [[3.6, 4, 4.4, 8], [30, 4, 40, 8], [3, -9, 9, -2]])
def test_no_pixel_no_mask(box):
    assert mask_in_image(np.ones((7, 7), np.float32), np.array(box), 20, 24) is None
