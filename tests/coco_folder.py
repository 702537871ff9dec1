"""A COCO folder of a few small images, to be spoiled in tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 40, 30


def image_bytes(seed: int, height: int = HEIGHT, width: int = WIDTH, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 5, width // 5, 3), np.uint8)
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def make_coco_folder(root: Path, num_images: int = 12) -> dict[str, Any]:
    """One file for all sets: images 1..n, two objects each, classes cat 1, dog 2, owl 7, fox 9.

    Image i holds a cat or a dog (annotation 10 i) and an owl or a fox (annotation 10 i + 1).
    """
    (root / "images").mkdir(parents=True)
    data: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i, "name": n} for i, n in [(9, "fox"), (2, "dog"), (1, "cat"), (7, "owl")]
        ],
    }
    for i in range(1, num_images + 1):
        (root / f"images/{i}.jpg").write_bytes(image_bytes(i))
        data["images"].append({"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH})
        for offset, pair, x in ((0, (1, 2), 3), (1, (7, 9), 20)):
            data["annotations"].append(
                {
                    "id": 10 * i + offset,
                    "image_id": i,
                    "category_id": pair[i % 2],
                    "bbox": [x, 5, 10, 10],
                    "area": 100,
                    "iscrowd": 0,
                    "segmentation": square(x, 5, 10),
                }
            )
    write_json(root / "all.json", data)
    third = num_images // 3
    ids = list(range(1, num_images + 1))
    lists = {"l": ids[:third], "u": ids[third : 2 * third], "v": ids[2 * third :]}
    write_json(root / "lists.json", lists)
    return data


def folder_config(root: Path, /, **changes: Any) -> dict[str, Any]:
    """Config of ``ingest`` for :func:`make_coco_folder`: labeled, unlabeled, validation."""

    def chosen(key: str) -> dict[str, Any]:
        ids = {"file": "lists.json", "key": key}
        return {"images": "images", "annotations": "all.json", "image_ids": ids}

    return {
        "root": str(root),
        "labeled": chosen("l"),
        "unlabeled": chosen("u"),
        "validation": chosen("v"),
        "known_classes": ["cat", "dog"],
        "images_per_shard": 3,
        **changes,
    }


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))
