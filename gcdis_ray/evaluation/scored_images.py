"""By which rules detections are scored, in which images, and how many of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.store.artifacts import Table

Bools = NDArray[np.bool_]
Rules = Literal["coco", "lvis"]
NO_PREDICTIONS = "the recipe predicts nothing"
ARE_IMAGES = "every image is an object: none was looked for"
BEST: Mapping[Rules, int] = {"coco": 100, "lvis": 300}  # detections of an image that are scored


def rules_of(truth_images: Table) -> Rules:
    """``lvis`` if any image tells which categories it was searched for, else ``coco``."""
    for shard in truth_images.iter_shards(["absent_category_ids"]):
        if shard["absent_category_ids"].null_count < shard.num_rows:
            return "lvis"
    return "coco"


@dataclass(frozen=True)
class Terms:
    """On which terms detections are scored.

    Args:
        rules: of average precision.
        iou: least overlap of a match that the map from outputs to classes is counted by.
        best: detections scored per image.
        kept: detections stored per image.
    """

    rules: Rules
    iou: float
    best: int
    kept: int


def in_mapping_half(image_ids: Iterable[int]) -> Bools:
    """Which images ``split_val`` maps by; the others are scored.

    Half of all ids: the first bit of the SHA-256 of the id in decimal digits is 0. It depends on
    the id alone, so runs and data sets that share images part them alike.
    """
    firsts = [hashlib.sha256(str(image_id).encode()).digest()[0] for image_id in image_ids]
    return np.array(firsts, dtype=np.uint8) < 128
