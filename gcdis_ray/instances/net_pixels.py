"""Between the pixels of an image and those a Mask R-CNN sees: images in, masks out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.masks.coco_rle import encode_window


def fitted_size(
    height: int, width: int, sides_px: tuple[int, int], jitter: float = 1.0
) -> tuple[int, int]:
    """(height, width) whose shorter side is ``sides_px[0] * jitter``, or less if the longer side
    would pass ``sides_px[1]``."""
    scale = min(sides_px[0] * jitter / min(height, width), sides_px[1] / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w, 3) scaled to (height, width): area averages when shrinking, linear otherwise."""
    import cv2

    if pixels.shape[:2] == size:
        return pixels
    shrinks = size[0] < pixels.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=method), np.uint8)


def mask_in_image(
    mask_MM: NDArray[np.float32], box_xyxy: NDArray[np.float32], height: int, width: int
) -> str | None:
    """A mask seen through its box as run lengths of the full image; None if it has no pixel there.

    Args:
        mask_MM: probabilities inside the box.
        box_xyxy: (4,) px of the image.
    """
    window, x0, y0 = paste(mask_MM, box_xyxy, height, width)
    return encode_window(window, x0, y0, height, width) if window.any() else None


def paste(
    mask_MM: NDArray[np.float32], box_xyxy: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.bool_], int, int]:
    """A mask seen through its box, as a bitmap of the box's window of whole pixels.

    Values at pixel centres are interpolated linearly between those of the mask's cells (beyond
    the outermost cell centres they stay constant) and cut at 0.5.

    Returns:
        the bitmap (h, w), and column and row of its first pixel. It may be empty.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    left, right = max(0, int(np.floor(x0))), min(width, int(np.ceil(x1)))
    top, bottom = max(0, int(np.floor(y0))), min(height, int(np.ceil(y1)))
    side = mask_MM.shape[0]
    columns = _blend(np.arange(left, right) + 0.5, x0, x1, side)
    rows = _blend(np.arange(top, bottom) + 0.5, y0, y1, side)
    return rows @ mask_MM @ columns.T >= 0.5, left, top


def _blend(
    centres: NDArray[np.floating], low: float, high: float, side: int
) -> NDArray[np.float32]:
    """(n, side) weights of the mask's cells at n pixel centres; 0 outside the box."""
    inside = (centres > low) & (centres < high)
    place = (centres - low) / max(high - low, 1e-6) * side - 0.5
    place = np.clip(place, 0, side - 1)
    first = np.minimum(place.astype(np.int64), side - 2)
    weights = np.zeros((len(centres), side), np.float32)
    rows = np.arange(len(centres))
    weights[rows, first] = 1 - (place - first)
    weights[rows, first + 1] = place - first
    return weights * inside[:, None]
