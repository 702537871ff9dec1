"""Run lengths of many compressed strings at once, and whether they are well formed.

C code trusts its input: a mask of the wrong length would keep pycocotools' IoU busy for ever, and
one that ends inside a number would have it read beyond the text. A mask has a few hundred runs, so
that a numpy call costs more than what it does for one mask: every call here is for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_column, as_texts

_AT_ONCE = 512  # some hundred thousand characters stay in the cache
_FAULTS = (
    "not an RLE string (foreign character)",
    "the RLE string ends inside a number",
    "the RLE string holds a number beyond 32 bits",
)


@dataclass(frozen=True)
class JoinedCounts:
    """Run lengths of several strings, one string after the other.

    Args:
        lengths: (C,) int64, in pixels: of each string zeros, ones, zeros, ...
        mask: (C,) int64: which string a run is of.
        is_one: (C,) bool: a run of ones.
        sizes: (N,) int64: runs of each string.
    """

    lengths: NDArray[np.int64]
    mask: NDArray[np.int64]
    is_one: NDArray[np.bool_]
    sizes: NDArray[np.int64]


def read_counts(rles: Sequence[str]) -> JoinedCounts:
    """Run lengths of compressed RLE strings.

    Raises:
        DataError: a string is not an RLE (foreign character, cut number, negative run).
    """
    try:
        digits = _Digits.of(as_texts(rles))
    except UnicodeEncodeError:
        raise DataError(f"mask: {_FAULTS[0]}") from None
    faults = digits.faults()
    if faults.any():
        raise DataError(f"mask: {_FAULTS[faults[faults > 0].min() - 1]}")
    counts = digits.counts()
    if counts.lengths.size and counts.lengths.min() < 0:
        raise DataError("mask: the RLE string holds a negative run")
    return counts


def run_areas(rles: pa.StringArray, num_pixels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Set pixels of these run lengths; -1 where they are malformed or do not cover exactly
    ``num_pixels``.

    Args:
        rles: (N,) texts, none of them null.
    """
    areas = np.empty(len(rles), dtype=np.int64)
    for low in range(0, len(rles), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        areas[part] = _areas(rles[part], np.asarray(num_pixels[part], dtype=np.int64))
    return areas


def _areas(rles: pa.StringArray, num_pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    digits = _Digits.of(rles)
    good = (digits.faults() == 0) & (np.diff(digits.bounds) > 0)
    if not good.all():
        areas = np.full(len(good), -1, dtype=np.int64)
        if good.any():
            areas[good] = _areas(rles.take(as_column(np.flatnonzero(good))), num_pixels[good])
        return areas
    counts = digits.counts()
    first = np.cumsum(counts.sizes) - counts.sizes
    whole = np.add.reduceat(counts.lengths, first) == num_pixels
    whole &= np.minimum.reduceat(counts.lengths, first) >= 0
    areas = np.add.reduceat(np.where(counts.is_one, counts.lengths, 0), first)
    return np.where(whole, areas, -1)


@dataclass(frozen=True)
class _Digits:
    """Characters of all strings, from 0, and where each string starts and the last one ends.

    A number has five bits a character, lowest first; bit 5 says that it goes on, bit 4 of the last
    character that it is negative. Seven characters hold every 32-bit run.
    """

    digits: NDArray[np.uint8]
    bounds: NDArray[np.int64]

    @staticmethod
    def of(rles: pa.StringArray) -> _Digits:
        _, offsets, text = rles.buffers()
        bounds = np.frombuffer(offsets, np.int32)[rles.offset :][: len(rles) + 1].astype(np.int64)
        characters = np.frombuffer(text or b"", np.uint8)[bounds[0] : bounds[-1]]
        return _Digits(characters - np.uint8(48), bounds - bounds[0])  # below "0": wraps around

    def faults(self) -> NDArray[np.uint8]:
        """(N,): 0 for a string of whole numbers, else 1 and the place in ``_FAULTS``."""
        faults = np.zeros(len(self.bounds) - 1, np.uint8)
        filled = np.flatnonzero(np.diff(self.bounds))
        ends = np.flatnonzero(self.digits < 32)
        long = ends[np.diff(ends, prepend=-1) > 7]
        of_long = self._string_of(long)
        # not where only the string before, cut off, makes it long
        faults[of_long[long - self.bounds[of_long] >= 7]] = 3
        faults[filled[self.digits[self.bounds[filled + 1] - 1] >= 32]] = 2
        faults[self._string_of(np.flatnonzero(self.digits > 63))] = 1
        return faults

    def _string_of(self, characters: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.searchsorted(self.bounds[1:], characters, side="right")

    def counts(self) -> JoinedCounts:
        """Run lengths of strings without faults; a run may still be negative."""
        ends = np.flatnonzero(self.digits < 32)  # the last character of each number
        numbers = self._numbers(ends)
        bounds = np.searchsorted(ends, self.bounds)
        first, sizes = bounds[:-1], np.diff(bounds)
        mask = np.repeat(np.arange(len(sizes)), sizes)
        odd = (np.arange(len(numbers)) - first[mask]) & 1
        # From the fourth on, a number is the difference to two before: sums of every other number,
        # less what they are before the string (two zeros before the first). The first stands alone.
        firsts = first[sizes > 0]
        sums = np.zeros(len(numbers) + 2, np.int64)
        sums[2:] = numbers
        sums[firsts + 2] = 0
        for half in (sums[0::2], sums[1::2]):
            np.cumsum(half, out=half)
        lengths = sums[2:] - sums[first[mask] + odd]
        lengths[firsts] = numbers[firsts]
        return JoinedCounts(lengths, mask, odd == 1, sizes)

    def _numbers(self, ends: NDArray[np.intp]) -> NDArray[np.int64]:
        """(C,) as they are written, signed."""
        num_digits = np.diff(ends, prepend=-1)
        numbers = (((self.digits[ends] & 31) ^ 16).astype(np.int8) - 16).astype(np.int64)
        longer, back = np.flatnonzero(num_digits > 1), 1
        while len(longer):
            numbers[longer] = (numbers[longer] << 5) + (self.digits[ends[longer] - back] & 31)
            back += 1
            longer = longer[num_digits[longer] > back]
        return numbers
