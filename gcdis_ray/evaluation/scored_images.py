"""Which images and how many of their detections are counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Rules = Literal["coco", "lvis"]
BEST: Mapping[Rules, int] = {"coco": 100, "lvis": 300}  # detections of an image that are scored


def in_mapping_half(image_ids: Iterable[int]) -> Bools:
    """Which images ``split_val`` maps by; the others are scored.

    Half of all ids: the first bit of the SHA-256 of the id in decimal digits is 0. It depends on
    the id alone, so runs and data sets that share images part them alike.
    """
    firsts = [hashlib.sha256(str(image_id).encode()).digest()[0] for image_id in image_ids]
    return np.array(firsts, dtype=np.uint8) < 128
