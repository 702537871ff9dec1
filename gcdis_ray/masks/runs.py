"""Masks as runs of pixels: what it takes to read, box and paint many of them at once.

Masks come as COCO *compressed RLE* strings (see :mod:`gcdis_ray.masks.coco_rle`). One has a few
hundred runs, so that a numpy call costs more than what it does for one mask: every call here is for
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcdis_ray.errors import DataError


@dataclass(frozen=True)
class JoinedCounts:
    """Run lengths of several strings, one string after the other.

    Args:
        lengths: (C,) int64, in pixels: of each string zeros, ones, zeros, ...
        mask: (C,) int64: which string a run is of.
        is_one: (C,) bool: a run of ones.
        sizes: (N,) int64: runs of each string.
    """

    lengths: np.ndarray
    mask: np.ndarray
    is_one: np.ndarray
    sizes: np.ndarray


def read_counts(rles: Sequence[str]) -> JoinedCounts:
    """Run lengths of compressed RLE strings.

    Raises:
        DataError: a string is not an RLE (foreign character, cut number, negative run).
    """
    numbers, sizes = _read_numbers(rles)
    first = np.cumsum(sizes) - sizes
    mask = np.repeat(np.arange(sizes.size), sizes)
    odd = (np.arange(numbers.size) - first[mask]) & 1
    # From the fourth on, a number is the difference to two before: sums of every other number,
    # less what they are before the string (two zeros before the first). The first stands alone.
    firsts = first[sizes > 0]
    sums = np.zeros(numbers.size + 2, np.int64)
    sums[2:] = numbers
    sums[firsts + 2] = 0
    for half in (sums[0::2], sums[1::2]):
        np.cumsum(half, out=half)
    lengths = sums[2:] - sums[first[mask] + odd]
    lengths[firsts] = numbers[firsts]
    if lengths.size and lengths.min() < 0:
        raise DataError("mask: the RLE string holds a negative run")
    return JoinedCounts(lengths, mask, odd == 1, sizes)


def _read_numbers(rles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all strings (C,) int64 as they are written, and how many each has (N,) int64."""
    try:
        digits = np.frombuffer("".join(rles).encode("ascii"), np.uint8) - np.uint8(48)
    except UnicodeEncodeError:
        raise DataError("mask: not an RLE string (foreign character)") from None
    if digits.size == 0:
        return np.zeros(0, np.int64), np.zeros(len(rles), np.int64)
    if digits.max() > 63:  # smaller characters have wrapped around
        raise DataError("mask: not an RLE string (foreign character)")
    ends = np.flatnonzero(digits < 32)  # bit 5 says that the number goes on
    bounds = np.cumsum([len(rle) for rle in rles])
    if (digits[bounds[bounds > 0] - 1] >= 32).any():
        raise DataError("mask: the RLE string ends inside a number")
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    num_digits = ends - starts + 1
    longest = int(num_digits.max())
    if longest > 7:
        raise DataError("mask: the RLE string holds a number beyond 32 bits")
    numbers = (digits[starts] & 31).astype(np.int64)
    for place in range(1, longest):
        longer = np.flatnonzero(num_digits > place)
        digit = (digits[starts[longer] + place] & 31).astype(np.int64)
        numbers[longer] |= digit << (5 * place)
    numbers -= (digits[ends] & 16).astype(np.int64) << (5 * num_digits - 4)  # sign bit
    return numbers, np.diff(np.searchsorted(ends, bounds), prepend=0)


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
