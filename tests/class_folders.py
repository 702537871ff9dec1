"""Small images in folders that are named by their classes: one pattern a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PATTERNS = {  # bright where true, by height and width in [0, 1]
    "cat": lambda y, x: y < 0.5,
    "dog": lambda y, x: x < 0.5,
    "owl": lambda y, x: (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.1,
    "fox": lambda y, x: y + x > 1,
}
NUM_LABELED = {"cat": 6, "dog": 6}
NUM_UNLABELED = {"cat": 5, "dog": 5, "owl": 6, "fox": 6}


def picture(name: str, seed: int, height: int = 24, width: int = 30) -> bytes:
    """A PNG of the pattern of its class, with noise."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width))
    grey = np.clip(np.where(PATTERNS[name](y, x), 200, 60) + noise, 0, 255)
    return cv2.imencode(".png", grey.astype(np.uint8))[1].tobytes()


def make_class_folders(root: Path, counts: Mapping[str, int], seed: int = 0) -> None:
    """``<root>/<class>/<number>.png``, numbered from 1 in every class."""
    for place, (name, count) in enumerate(sorted(counts.items())):
        (root / name).mkdir(parents=True)
        for number in range(1, count + 1):
            data = picture(name, 1000 * seed + 100 * place + number, width=30 + number)
            (root / name / f"{number}.png").write_bytes(data)


def make_crop_folders(root: Path) -> None:
    """``labeled`` and ``unlabeled``, both with class folders."""
    make_class_folders(root / "labeled", NUM_LABELED)
    make_class_folders(root / "unlabeled", NUM_UNLABELED, seed=1)


def crop_folders_config(root: Path, /, **changes: Any) -> dict[str, Any]:
    """Config of ``ingest`` for :func:`make_crop_folders`."""
    return {
        "root": str(root),
        "labeled": {"images": "labeled", "format": "class_folders"},
        "unlabeled": {"images": "unlabeled", "format": "class_folders"},
        "known_classes": "all",
        "images_per_shard": 8,
        **changes,
    }
