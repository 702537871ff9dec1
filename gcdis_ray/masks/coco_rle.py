"""Instance masks as COCO run-length strings: the one home of pycocotools' mask functions.

A mask is a ``str`` of COCO *compressed RLE* counts; its size is always that of its image and is
passed along as ``height_px, width_px``. Runs go down the columns (column-major) and start with a
run of zeros. Boxes are ``bbox_xyxy``: absolute pixels, x1 and y1 exclusive.

Masks from outside enter through :mod:`gcdis_ray.records.segmentations`, strings alone through
:func:`check_rle`; they refuse anything that is not a mask of exactly that size. The other functions
trust what they are given.
Full-size bitmaps are slow (250 us at 480 x 640), so work in windows where you can; many masks of an
image are boxed and painted together by :mod:`gcdis_ray.masks.runs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.masks.run_lengths import read_counts
from gcdis_ray.masks.runs import MaskRuns

MAX_PIXELS = (1 << 31) - 1  # counts are 32-bit inside pycocotools


def coco_mask() -> Any:
    """pycocotools' functions, loaded when first needed: planning a run must not load them."""
    from pycocotools import mask

    return mask


def _objects(rles: Sequence[str], height_px: int, width_px: int) -> list[Any]:
    return [{"size": [height_px, width_px], "counts": rle} for rle in rles]


def check_size(height_px: int, width_px: int) -> None:
    """Raise DataError if no mask can have this size."""
    if height_px < 1 or width_px < 1 or height_px * width_px > MAX_PIXELS:
        raise DataError(f"no mask can have the size {height_px} x {width_px}")


def _check_total(total: int, height_px: int, width_px: int) -> None:
    if total != height_px * width_px:
        raise DataError(
            f"mask outside the image: runs cover {total} pixels, "
            f"the image has {height_px} x {width_px} = {height_px * width_px}"
        )


# ---------------------------------------------------------------- run-length strings


def counts_from_rle(rle: str) -> np.ndarray:
    """Run lengths of a compressed RLE string.

    Returns:
        (R,) int64: zeros, ones, zeros, ... in pixels.

    Raises:
        DataError: the string is not an RLE (foreign character, cut number, negative run).
    """
    return read_counts([rle]).lengths


def rle_from_counts(counts: Sequence[int] | np.ndarray, height_px: int, width_px: int) -> str:
    """Compressed RLE of run lengths (zeros first).

    Raises:
        DataError: the runs are not whole, not >= 0 or do not add up to the image.
    """
    check_size(height_px, width_px)
    try:
        runs = np.asarray(counts)
    except (ValueError, OverflowError):
        runs = np.asarray(None)
    if runs.ndim != 1 or runs.dtype.kind not in "iu":
        raise DataError("mask: RLE counts must be a list of whole numbers")
    if runs.size and int(runs.min()) < 0:
        raise DataError(f"mask: negative run {int(runs.min())} in RLE counts")
    # the largest run first: beyond it a sum could wrap around
    largest = int(runs.max()) if runs.size else 0
    _check_total(largest if largest > MAX_PIXELS else int(runs.sum()), height_px, width_px)
    raw = {"size": [height_px, width_px], "counts": runs.tolist()}
    packed = coco_mask().frPyObjects([raw], height_px, width_px)[0]["counts"]
    return packed.decode("ascii") if isinstance(packed, bytes) else packed


def check_rle(rle: str, height_px: int, width_px: int) -> str:
    """``rle`` itself if it is a mask of exactly this size, else :class:`DataError`."""
    check_size(height_px, width_px)
    _check_total(int(counts_from_rle(rle).sum()), height_px, width_px)
    return rle


def rle_from_polygons(polygons: Sequence[Sequence[float]], height_px: int, width_px: int) -> str:
    """Compressed RLE of the union of polygons, each x, y, x, y, ... of three or more points.

    C code draws them and trusts its input: see :mod:`gcdis_ray.records.segmentations`.
    """
    check_size(height_px, width_px)
    pieces = coco_mask().frPyObjects([list(points) for points in polygons], height_px, width_px)
    merged = coco_mask().merge(pieces)["counts"]
    return merged.decode("ascii") if isinstance(merged, bytes) else merged


# ---------------------------------------------------------------- bitmaps


def encode(mask_HW: np.ndarray) -> str:
    """Compressed RLE of a bitmap (H, W), bool or 0 / nonzero."""
    return encode_window(mask_HW, 0, 0, *mask_HW.shape)


def encode_window(mask_hw: np.ndarray, x0: int, y0: int, height_px: int, width_px: int) -> str:
    """Compressed RLE of a full image whose only set pixels lie in a window.

    Builds runs from the window alone: no bitmap of the image's size is made.

    Args:
        mask_hw: (h, w), bool or 0 / nonzero.
        x0, y0: column and row of the window's first pixel; the window must lie in the image.
    """
    height, width = mask_hw.shape
    if x0 < 0 or y0 < 0 or x0 + width > width_px or y0 + height > height_px:
        raise DataError(
            f"mask outside the image: window {width} x {height} at ({x0}, {y0}) "
            f"in {width_px} x {height_px}"
        )
    padded = np.zeros((width, height + 2), np.int8)  # column by column, a zero at either end
    padded[:, 1:-1] = mask_hw.T != 0
    column, edge = np.nonzero(np.diff(padded, axis=1))  # a start, then an end, and so on
    position = (column + x0) * height_px + edge + y0
    starts, ends = position[0::2], position[1::2]
    apart = starts[1:] != ends[:-1]  # runs that meet across a column break are one run
    starts = starts[np.concatenate(([True], apart))] if starts.size else starts
    ends = ends[np.concatenate((apart, [True]))] if ends.size else ends
    bounds = np.empty(2 * starts.size + 2, np.int64)
    bounds[0], bounds[-1] = 0, height_px * width_px
    bounds[1:-1:2], bounds[2:-1:2] = starts, ends
    counts = np.diff(bounds)
    if counts.size > 1 and counts[-1] == 0:
        counts = counts[:-1]  # pycocotools writes no empty last run: equal masks, equal strings
    return rle_from_counts(counts, height_px, width_px)


def decode(rle: str, height_px: int, width_px: int) -> np.ndarray:
    """Bitmap (H, W) bool of the whole image. Prefer :func:`decode_window`."""
    return decode_window(rle, height_px, width_px, (0, 0, width_px, height_px))


def decode_window(
    rle: str, height_px: int, width_px: int, window_xyxy: Sequence[int]
) -> np.ndarray:
    """Bitmap (h, w) bool of the part of a mask inside a window of whole pixels in the image."""
    runs = MaskRuns.read([rle], np.array([height_px]), np.array([width_px]))
    return runs.paint(np.array([window_xyxy], np.int64))[0].view(np.bool_)


# ---------------------------------------------------------------- measures


def areas(rles: Sequence[str], height_px: int, width_px: int) -> np.ndarray:
    """(N,) float64: set pixels of each mask."""
    if not rles:
        return np.zeros(0)
    return coco_mask().area(_objects(rles, height_px, width_px)).astype(np.float64)


def area(rle: str, height_px: int, width_px: int) -> float:
    """Set pixels of one mask."""
    return float(areas([rle], height_px, width_px)[0])


def bbox_xyxy(rle: str, height_px: int, width_px: int) -> tuple[float, float, float, float]:
    """The tight box of one mask, all zero for an empty mask."""
    if not area(rle, height_px, width_px):
        return 0.0, 0.0, 0.0, 0.0
    x0, y0, width, height = coco_mask().toBbox(_objects([rle], height_px, width_px))[0].tolist()
    return x0, y0, x0 + width, y0 + height


def iou_matrix(
    rles: Sequence[str],
    others: Sequence[str],
    height_px: int,
    width_px: int,
    *,
    iscrowd: Sequence[bool] | None = None,
) -> np.ndarray:
    """Overlap of every mask with every other mask of the same image.

    Args:
        iscrowd: per mask of ``others``; for a crowd the overlap is intersection over the area of
            the mask in ``rles`` (COCO's rule), for all else intersection over union.

    Returns:
        (len(rles), len(others)) float64 in [0, 1]; two empty masks overlap by 0.
    """
    if not rles or not others:
        return np.zeros((len(rles), len(others)))
    crowd = [int(flag) for flag in iscrowd] if iscrowd is not None else [0] * len(others)
    return np.asarray(
        coco_mask().iou(
            _objects(rles, height_px, width_px),
            _objects(others, height_px, width_px),
            crowd,
        )
    )
