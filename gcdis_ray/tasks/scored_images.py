"""Which images and which of their detections are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def best_per_image(
    image_N: NDArray[np.integer], score_N: NDArray[np.floating], limit: int
) -> Bools:
    """Whether a detection is among the ``limit`` best of its image; of equal ones, the first."""
    order = np.lexsort((-score_N, image_N))
    image = image_N[order]
    starts = np.flatnonzero(np.diff(image, prepend=image[:1] - 1))
    rank = np.arange(len(image)) - np.repeat(starts, np.diff(starts, append=len(image)))
    kept = np.zeros(len(image), dtype=np.bool_)
    kept[order] = rank < limit
    return kept


def in_mapping_half(image_ids: Iterable[int]) -> Bools:
    """Which images ``split_val`` maps by; the others are scored.

    Half of all ids: the first bit of the SHA-256 of the id in decimal digits is 0. It depends on
    the id alone, so runs and data sets that share images part them alike.
    """
    firsts = [hashlib.sha256(str(image_id).encode()).digest()[0] for image_id in image_ids]
    return np.array(firsts, dtype=np.uint8) < 128
