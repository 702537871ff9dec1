"""From masks and photographs to crops: windows, outlines, shrinking, encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from gcdis_ray.data.crops.cut_spec import CutSpec
from gcdis_ray.masks.runs import MaskRuns


class Outline(NamedTuple):
    """Where an object is in its image.

    Args:
        bbox_xyxy: the tight box of its mask.
        window_xyxy: the part of the image that its crop shows, in whole pixels.
        mask_hw: the mask inside the window, uint8, 0 or 255.
    """

    bbox_xyxy: list[float]
    window_xyxy: list[int]
    mask_hw: np.ndarray


def outline_objects(rles: Sequence[str], sizes_hw: np.ndarray, context: float) -> list[Outline]:
    """Outlines of objects of any images: many at a time are much faster than one by one.

    Args:
        rles: masks of their images' sizes.
        sizes_hw: (N, 2) int64, the size of each object's image in pixels.
        context: see :func:`crop_windows`.
    """
    runs = MaskRuns.read(rles, sizes_hw[:, 0], sizes_hw[:, 1])
    boxes = runs.boxes_xyxy()
    windows = crop_windows(boxes, context, sizes_hw)
    masks = runs.paint(windows, value=255)
    return [Outline(*each) for each in zip(boxes.tolist(), windows.tolist(), masks, strict=True)]


def crop_windows(boxes_xyxy: np.ndarray, context: float, sizes_hw: np.ndarray) -> np.ndarray:
    """Whole-pixel windows (N, 4) int64 around boxes (N, 4) with a margin, inside their images.

    Args:
        context: margin on every side as a share of the box's longer side.
        sizes_hw: (N, 2) size of each box's image in pixels.
    """
    starts, ends = np.split(boxes_xyxy.astype(np.float64), 2, axis=1)
    margin = context * (ends - starts).max(axis=1, keepdims=True)
    starts, ends = np.floor(starts - margin), np.ceil(ends + margin)
    inside = np.maximum(starts, 0), np.minimum(ends, sizes_hw[:, ::-1])
    return np.concatenate(inside, axis=1).astype(np.int64)


def cut_out(
    pixels_HW3: np.ndarray, outline: Outline, max_side_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (h, w, 4) uint8 BGR and an unused channel, and mask (h, w) uint8, 0 or 255, of an
    object, shrunk to ``max_side_px`` if it is larger.

    Args:
        pixels_HW3: the whole image, RGB uint8.
    """
    import cv2

    x0, y0, x1, y1 = outline.window_xyxy
    mask = outline.mask_hw
    crop = cv2.cvtColor(pixels_HW3[y0:y1, x0:x1], cv2.COLOR_RGB2BGRA)
    shrink = max_side_px / max(x1 - x0, y1 - y0)
    if shrink >= 1:
        return crop, mask
    size = max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink))
    cv2.insertChannel(mask, crop, 3)
    # OpenCV averages four channels of 16 bits almost twice as fast as three and one of 8 bits, to
    # the same values
    crop = cv2.resize(crop.astype(np.uint16), size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    cover = cv2.extractChannel(crop, 3)
    # a pixel belongs to the mask if half of it does; a hair-thin mask keeps what it touches
    least = 128 if cover.max() >= 128 else 1
    return crop, cv2.threshold(cover, least - 1, 255, cv2.THRESH_BINARY)[1]


def encode_jpeg(colors_hw4: np.ndarray, quality: int) -> bytes:
    """JPEG of BGR uint8; a fourth channel is passed over."""
    import cv2

    return cv2.imencode(".jpg", colors_hw4, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_mask(mask_hw: np.ndarray) -> bytes:
    """PNG of a mask, uint8, 0 or 255."""
    import cv2

    # one bit a pixel: four times faster to deflate than bytes, and a third of the size
    bits = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_BILEVEL, 1]
    return cv2.imencode(".png", mask_hw, bits)[1].tobytes()


def cut_image(pixels_HW3: np.ndarray, rles: Sequence[str], spec: CutSpec) -> list[dict[str, Any]]:
    """:func:`cut_crops` of one image."""
    return cut_crops(iter([pixels_HW3]), np.array([pixels_HW3.shape[:2]]), [rles], spec)


def cut_crops(
    pictures: Iterator[np.ndarray],
    sizes_hw: np.ndarray,
    rles: Sequence[Sequence[str]],
    spec: CutSpec,
) -> list[dict[str, Any]]:
    """Objects of images as columns ``window_xyxy``, ``bbox_xyxy``, ``jpeg`` and ``mask_png``.

    One kind of work is done for all objects before the next: done in turn for each, every one would
    push the others' code out of the processor's caches, and all would be slower.

    Args:
        pictures: gives each image in full, RGB uint8 (H, W, 3).
        sizes_hw: (I, 2) int64, the images' sizes in pixels.
        rles: of each image, masks of its size.
    """
    num_objects = [len(each) for each in rles]
    outlines = outline_objects(
        list(chain.from_iterable(rles)), np.repeat(sizes_hw, num_objects, axis=0), spec.context
    )
    ahead = iter(outlines)
    cuts = [
        cut_out(pixels, outline, spec.max_side_px)
        for number, pixels in zip(num_objects, pictures, strict=False)  # leaves the rest
        for outline in islice(ahead, number)
    ]
    jpegs = [encode_jpeg(colors, spec.jpeg_quality) for colors, _ in cuts]
    pngs = [encode_mask(mask) for _, mask in cuts]
    return [
        {
            "window_xyxy": where.window_xyxy,
            "bbox_xyxy": where.bbox_xyxy,
            "jpeg": jpeg,
            "mask_png": png,
        }
        for where, jpeg, png in zip(outlines, jpegs, pngs, strict=True)
    ]
