"""Areas of compressed run lengths, and whether they are well formed: C code trusts its input.

Many masks at once, without decoding any: a mask of the wrong length would keep pycocotools' IoU
busy for ever, and one that ends inside a number would have it read beyond the text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.files.arrow_columns import as_column

_AT_ONCE = 512  # some hundred thousand characters stay in the cache


def run_areas(counts: pa.StringArray, num_pixels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Set pixels of these run lengths; -1 where they are malformed or do not cover exactly
    ``num_pixels``.

    Args:
        counts: (N,) texts, none of them null.
    """
    areas = np.empty(len(counts), dtype=np.int64)
    for low in range(0, len(counts), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        areas[part] = _areas(counts[part], np.asarray(num_pixels[part], dtype=np.int64))
    return areas


def _areas(counts: pa.StringArray, num_pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number has five bits a character, lowest first; bit 5 says that it goes on, bit 4 of the
    last character that it is negative. From the fourth on it is the change since two runs before.
    Seven characters hold every 32-bit run.
    """
    if not len(counts):
        return np.zeros(0, dtype=np.int64)
    code, text_ends = _characters(counts)
    good = np.diff(text_ends, prepend=0) > 0
    good[np.searchsorted(text_ends, np.flatnonzero(code > 63), side="right")] = False
    good[good] = code[text_ends[good] - 1] < 32  # ends inside a number
    if good.all():
        ends = np.flatnonzero(code < 32)  # the last character of each number
        lengths = np.diff(ends, prepend=-1)
        good[np.searchsorted(text_ends, ends[lengths > 7], side="right")] = False
    if not good.all():
        areas = np.full(len(good), -1, dtype=np.int64)
        areas[good] = _areas(counts.take(as_column(np.flatnonzero(good))), num_pixels[good])
        return areas
    values = _numbers(code, ends, lengths)
    first = np.searchsorted(ends, np.concatenate([[0], text_ends[:-1]]))
    opening = values[first]
    values[first] = 0  # nothing is added to a mask's first run
    # every other number is of the same chain: sums go on from mask to mask, and that is taken off
    sums = np.zeros((len(values) // 2 + 2, 2), dtype=np.int64)
    sums.reshape(-1)[: len(values)] = values
    np.cumsum(sums, axis=0, out=sums)
    flat = sums.reshape(-1)
    covered, areas = opening.copy(), np.zeros_like(opening)
    good = opening >= 0
    for parity in (0, 1):
        rows = np.append((first + 1 - parity) // 2, (len(values) + 1 - parity) // 2)
        size = np.diff(rows)
        back = 2 - (first + parity) % 2  # 2: these are the mask's own first, third, ... runs
        before = np.where(first >= back, flat[first - back], 0)
        chain = sums[:, parity]
        least = np.minimum.reduceat(chain, rows)[:-1]
        inside = np.where(size > 0, np.add.reduceat(chain, rows)[:-1] - size * before, 0)
        good &= (size == 0) | (least >= before)
        covered += inside
        areas += np.where(back == 1, inside, 0)
    return np.where(good & (covered == num_pixels), areas, -1)


def _characters(counts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All characters, from 0, and where each text ends."""
    _, offsets, text = counts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[counts.offset :][: len(counts) + 1].astype(np.int64)
    raw = np.frombuffer(text or b"", np.uint8)[bounds[0] : bounds[-1]]
    return raw - np.uint8(48), bounds[1:] - bounds[0]


def _numbers(
    code: NDArray[np.uint8], ends: NDArray[np.intp], lengths: NDArray[np.intp]
) -> NDArray[np.int64]:
    values = (((code[ends] & 31) ^ 16).astype(np.int8) - 16).astype(np.int64)
    longer, back = np.flatnonzero(lengths > 1), 1
    while len(longer):
        values[longer] = (values[longer] << 5) + (code[ends[longer] - back] & 31)
        back += 1
        longer = longer[lengths[longer] > back]
    return values
