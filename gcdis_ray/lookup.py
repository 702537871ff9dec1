"""Finding ids in sorted ones, and places in groups, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def places(
    ids_N: NDArray[np.integer], rising: Sequence[int] | NDArray[np.integer]
) -> NDArray[np.int64]:
    """Position of each id among sorted ones (the first of equal ones), -1 where it is not there.

    Costs a search each; ``np.isin`` sorts all of them anew, however few are looked for.
    """
    rising = np.asarray(rising, dtype=np.int64)
    if not len(rising):
        return np.full(len(ids_N), -1, dtype=np.int64)
    ids_N = ids_N.astype(np.int64, copy=False)
    place = np.minimum(np.searchsorted(rising, ids_N), len(rising) - 1)
    return np.where(rising[place] == ids_N, place, -1)


def is_in(ids_N: NDArray[np.integer], rising: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which ids are among sorted ones."""
    return places(ids_N, rising) >= 0


def rank_in_group(key_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """Position of each row among neighbours of its key, which is not negative: 0, 1, 2, 0, ..."""
    first = np.flatnonzero(np.diff(key_N, prepend=-1))
    return np.arange(len(key_N)) - np.repeat(first, np.diff(np.append(first, len(key_N))))
