"""Whether compressed run lengths are well formed: the C code that reads them trusts its input.

Many masks at once, without decoding any: a mask of the wrong length would keep pycocotools' IoU
busy for ever, and one that ends inside a number would have it read beyond the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 512  # some hundred thousand characters stay in the cache


def filling(counts: Sequence[str], num_pixels: Sequence[int]) -> NDArray[np.bool_]:
    """Which of these run lengths are well formed and cover exactly so many pixels."""
    good = np.ones(len(counts), dtype=np.bool_)
    for start in range(0, len(counts), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        good[part] = _filling(counts[part], np.asarray(num_pixels[part], dtype=np.int64))
    return good


def _filling(counts: Sequence[str], num_pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A number has five bits a character, lowest first; bit 5 says that it goes on, bit 4 of the
    last character that it is negative. From the fourth on it is the change since two runs before.
    Seven characters hold every 32-bit run.
    """
    raw = [text.encode("ascii", "replace") for text in counts]
    length = np.array([len(text) for text in raw], dtype=np.int64)
    code = np.frombuffer(b"".join(raw), dtype=np.uint8) - np.uint8(48)
    text_ends = np.cumsum(length)
    good = np.array([text.isascii() for text in counts]) & (length > 0)
    good[np.searchsorted(text_ends, np.flatnonzero(code > 63), side="right")] = False
    good[good] = code[text_ends[good] - 1] < 32  # ends inside a number
    if good.all():
        ends = np.flatnonzero(code < 32)  # the last character of each number
        lengths = ends.copy()
        lengths[0] += 1
        lengths[1:] -= ends[:-1]
        far = ends[lengths > 7]
        good[np.searchsorted(text_ends, far, side="right")] = False
    if not good.all() or not len(good):
        kept = np.flatnonzero(good).tolist()
        if kept:
            good[kept] = _filling([counts[n] for n in kept], num_pixels[kept])
        return good
    values = _numbers(code, ends, lengths)
    first = np.searchsorted(ends, np.concatenate([[0], text_ends[:-1]]))
    size = np.diff(np.append(first, len(values)))
    opening = values[first]
    values[first] = 0  # nothing is added to a mask's first run
    # every other number is of the same chain: sums go on from mask to mask, and that is taken off
    sums = np.zeros((len(values) // 2 + 1, 2), dtype=np.int64)
    sums.reshape(-1)[: len(values)] = values
    np.cumsum(sums, axis=0, out=sums)
    flat = sums.reshape(-1)
    before = [np.where(first >= n, flat[first - n], 0) for n in (2, 1)]
    covered = opening + np.add.reduceat(flat[: len(values)], first)
    covered -= (size + 1) // 2 * before[0] + size // 2 * before[1]
    good = (covered == num_pixels) & (opening >= 0)
    for parity in (0, 1):
        row = (first + 1 - parity) // 2
        there = np.diff(np.append(row, (len(values) + 1 - parity) // 2)) > 0
        least = np.minimum.reduceat(sums[:, parity], row)
        good &= ~there | (least >= np.where((first - parity) % 2 == 0, before[0], before[1]))
    return good


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
