"""Which detections of an image are scored: the cut to the best, and outputs that mean nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.tasks.mapping_config import Drop

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


def scored_detections(
    predictions: pa.Table, named_K: Bools, limit: int, drop: Drop
) -> tuple[pa.Table, int]:
    """Detections that take part in AP, in their order.

    Args:
        predictions: ``image_id``, ``class_index``, ``score`` and any other columns.
        named_K: whether each output stands for a class.
        limit: detections per image.

    Returns:
        the detections, and how many were left out because their output stands for no class.
    """
    named = named_K[predictions["class_index"].to_numpy()]
    image, score = predictions["image_id"].to_numpy(), predictions["score"].to_numpy()
    if drop == "after_topk":
        best = best_per_image(image, score, limit)
        return predictions.filter(pa.array(best & named)), int((best & ~named).sum())
    kept = np.flatnonzero(named)
    kept = kept[best_per_image(image[kept], score[kept], limit)]
    return predictions.take(pa.array(kept)), int((~named).sum())


def in_mapping_half(image_ids: Iterable[int]) -> Bools:
    """Which images ``split_val`` maps by; the others are scored.

    Half of all ids: the first bit of the SHA-256 of the id in decimal digits is 0. It depends on
    the id alone, so runs and data sets that share images part them alike.
    """
    firsts = [hashlib.sha256(str(image_id).encode()).digest()[0] for image_id in image_ids]
    return np.array(firsts, dtype=np.uint8) < 128
