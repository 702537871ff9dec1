"""Whether compressed run lengths are well formed: the C code that reads them trusts its input.

Many masks at once, without decoding any: a mask of the wrong length would keep pycocotools' IoU
busy for ever, and one that ends inside a number would have it read beyond the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2048


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
        far = ends[np.diff(ends, prepend=-1) > 7]
        good[np.searchsorted(text_ends, far, side="right")] = False
    if not good.all() or not len(good):
        kept = np.flatnonzero(good).tolist()
        if kept:
            good[kept] = _filling([counts[n] for n in kept], num_pixels[kept])
        return good
    values = _numbers(code, ends)
    first = np.searchsorted(ends, np.concatenate([[0], text_ends[:-1]]))
    size = np.diff(np.append(first, len(values)))
    # two numbers a row, each mask from a row of its own, the first number of a mask set apart
    rows = size // 2 + 1
    row = np.cumsum(rows) - rows
    runs = np.zeros(2 * rows.sum(), dtype=np.int64)
    runs[np.arange(len(values)) + np.repeat(2 * row - first, size)] = values
    opening = runs[2 * row].copy()
    runs[2 * row] = 0
    chains = np.cumsum(runs.reshape(-1, 2), axis=0)
    before = np.concatenate([np.zeros((1, 2), np.int64), chains])[row]
    chains -= np.repeat(before, rows, axis=0)
    last = np.repeat(rows, rows) == np.arange(len(chains)) - np.repeat(row, rows) + 1
    chains[last, 1] = 0  # beyond the end: a mask of 2 n or 2 n + 1 numbers has n + 1 rows
    chains[last & np.repeat(size % 2 == 0, rows), 0] = 0
    covered = opening + np.add.reduceat(chains.sum(axis=1), row)
    least = np.minimum(opening, np.minimum.reduceat(chains.min(axis=1), row))
    return (covered == num_pixels) & (least >= 0)


def _numbers(code: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.int64]:
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    values = (code[starts] & 31).astype(np.int64)
    longer, place = np.flatnonzero(lengths > 1), 1
    while len(longer):
        values[longer] += (code[starts[longer] + place] & 31).astype(np.int64) << 5 * place
        place += 1
        longer = longer[lengths[longer] > place]
    negative = np.flatnonzero(code[ends] & 16)
    values[negative] -= np.int64(1) << (5 * lengths[negative])
    return values
