"""Masks as runs of pixels: what it takes to box and paint many of them at once.

Masks come as COCO *compressed RLE* strings (see :mod:`gcdis_ray.masks.coco_rle`), many a call, as
in :mod:`gcdis_ray.masks.run_lengths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.masks.run_lengths import read_counts


@dataclass(frozen=True)
class MaskRuns:
    """Runs of ones of N masks, none of them empty; those of a mask go down its columns.

    Args:
        starts, ends: (R,) int64: a run's first pixel in its mask, and the one after its last.
        mask: (R,) int64, ascending: which mask a run is of.
        heights, widths: (N,) int64: each mask's size in pixels.
    """

    starts: np.ndarray
    ends: np.ndarray
    mask: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    @staticmethod
    def read(rles: Sequence[str], heights: np.ndarray, widths: np.ndarray) -> MaskRuns:
        """Runs of compressed RLE strings.

        Raises:
            DataError: a string is no mask, or not one of its size.
        """
        counts = read_counts(rles)
        ends, sizes = np.concatenate(([0], np.cumsum(counts.lengths))), heights * widths
        bounds = np.cumsum(sizes)
        if not np.array_equal(ends[np.cumsum(counts.sizes)], bounds):
            raise DataError("mask outside the image: its runs do not add up to the image's pixels")
        kept = np.flatnonzero(counts.is_one & (counts.lengths > 0))
        mask = counts.mask[kept]
        ends = ends[kept + 1] - (bounds - sizes)[mask]
        return MaskRuns(ends - counts.lengths[kept], ends, mask, heights, widths)

    def boxes_xyxy(self) -> np.ndarray:
        """(N, 4) float32: the tight box of each mask, all zero for an empty mask."""
        boxes = np.zeros((self.heights.size, 4), np.float32)
        if not self.mask.size:
            return boxes
        height = self.heights[self.mask]
        left, top = np.divmod(self.starts, height)
        right, bottom = np.divmod(self.ends - 1, height)
        turns = left != right  # goes on in the next column: has the last row and the first
        top[turns], bottom[turns] = 0, height[turns] - 1
        first = np.flatnonzero(np.diff(self.mask, prepend=-1))  # of each mask with any
        last = np.append(first[1:], self.mask.size) - 1
        sides = left[first], np.minimum.reduceat(top, first)
        ends = right[last] + 1, np.maximum.reduceat(bottom, first) + 1
        boxes[self.mask[first]] = np.stack((*sides, *ends), axis=1)
        return boxes

    def paint(self, windows_xyxy: np.ndarray, value: int = 1) -> list[np.ndarray]:
        """The part (h, w) uint8, 0 or ``value``, of each mask inside a window of its own.

        Args:
            windows_xyxy: (N, 4) int64: whole pixels inside the mask.
        """
        x0, y0, x1, y1 = windows_xyxy.T
        outside = (x0 < 0) | (x0 > x1) | (x1 > self.widths)
        outside |= (y0 < 0) | (y0 > y1) | (y1 > self.heights)
        if outside.any():
            window = tuple(windows_xyxy[np.argmax(outside)].tolist())
            raise DataError(f"window {window} outside the image")
        height, width = y1 - y0, x1 - x0
        last = np.cumsum(height * width)
        # Where runs start and end among the pixels of all windows: what lies outside a window
        # moves to the edge of its column, or to the window's first pixel or end.
        of = self.mask
        edges = np.stack((self.starts, self.ends))
        column = edges // self.heights[of]
        row = edges - column * self.heights[of] - y0[of]
        place = (column - x0[of]) * height[of] + np.minimum(np.maximum(row, 0), height[of])
        size = (height * width)[of]
        place = np.minimum(np.maximum(place, 0), size) + (last - height * width)[of]
        bounds = np.zeros(2 * of.size + 2, np.int64)
        bounds[1:-1:2], bounds[2:-1:2] = place
        bounds[-1] = (height * width).sum()
        values = np.zeros(bounds.size - 1, np.uint8)
        values[1::2] = value
        pixels = np.repeat(values, np.diff(bounds))
        shapes = zip(last.tolist(), width.tolist(), height.tolist(), strict=True)
        return [_upright(pixels[end - w * h : end].reshape(w, h)) for end, w, h in shapes]


def _upright(columns: np.ndarray) -> np.ndarray:
    """(h, w) of (w, h)."""
    import cv2  # transposes several times faster than numpy

    return cv2.transpose(columns) if columns.size else columns.T
