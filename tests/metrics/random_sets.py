"""Small sets of objects and detections with masks, drawn anew from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

SIZE = (60, 200)


def _rle(mask_HW: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _shape(rng: np.random.Generator, big: bool = False) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    low, high = ((52, 180), (58, 190)) if big else ((1, 1), (45, 190))
    height, width = rng.integers(low[0], high[0]), rng.integers(low[1], high[1])
    y, x = rng.integers(0, SIZE[0] - height), rng.integers(0, SIZE[1] - width)
    mask[y : y + height, x : x + width] = True
    mask[y, x] = height * width == 1
    return mask


def _moved(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(mask, (rng.integers(-4, 5), rng.integers(-12, 13)), axis=(0, 1))


def random_set(seed: int, lvis: bool = False) -> tuple[dict, list[dict]]:
    """Objects of all sizes with crowds, ties in score, empty images and empty classes."""
    rng = np.random.default_rng(seed)
    images = [{"id": 10 + i, "height": SIZE[0], "width": SIZE[1]} for i in range(4)]
    categories = [{"id": 2 * c + 1, "name": f"c{c}", "frequency": "rcf"[c % 3]} for c in range(4)]
    annotations, results = [], []
    for image in images[:3]:
        for _ in range(rng.integers(0, 9)):
            mask = _shape(rng)
            category = int(rng.choice([1, 3, 5]))
            box = coco_mask.toBbox(_rle(mask)).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "segmentation": _rle(mask),
                    "bbox": box,
                    "area": float(mask.sum()),
                    "iscrowd": int(not lvis and rng.random() < 0.2),
                }
            )
            for _ in range(rng.integers(0, 3)):
                results.append((image["id"], category, _moved(mask, rng)))
    for _ in range(rng.integers(0, 8)):
        results.append((int(rng.choice([10, 11, 12, 13])), int(rng.choice([1, 3, 7])), _shape(rng)))
    detections = [
        {
            "image_id": image_id,
            "category_id": category,
            "segmentation": _rle(mask),
            "score": float(rng.integers(0, 6)) / 5,
        }
        for image_id, category, mask in results
    ]
    rng.shuffle(detections)  # pyright: ignore[reportArgumentType]
    if lvis:
        for image in images:
            image["neg_category_ids"] = [int(c) for c in rng.choice([1, 3, 5, 7], 2, replace=False)]
            image["not_exhaustive_category_ids"] = [int(rng.choice([1, 3, 5, 7]))]
    return {"images": images, "categories": categories, "annotations": annotations}, detections


def as_boxes(detections: list[dict]) -> list[dict]:
    rows = []
    for row in detections:
        box = coco_mask.toBbox(row["segmentation"]).tolist()
        rows.append({k: v for k, v in row.items() if k != "segmentation"} | {"bbox": box})
    return rows


def crowded_set(seed: int, num_more: int = 330) -> tuple[dict, list[dict]]:
    """An LVIS set with large objects, too, and more detections on one image than LVIS's 300, of
    every class; only eleven scores, so that ties decide which of them count."""
    truth, detections = random_set(seed, lvis=True)
    rng = np.random.default_rng([seed, 1])
    objects = truth["annotations"]
    for image in truth["images"][:3]:
        mask = _shape(rng, big=True)
        objects.append(
            {
                "id": len(objects) + 1,
                "image_id": image["id"],
                "category_id": int(rng.choice([1, 3, 5])),
                "segmentation": _rle(mask),
                "bbox": coco_mask.toBbox(_rle(mask)).tolist(),
                "area": float(mask.sum()),
                "iscrowd": 0,
            }
        )
    crowded = truth["images"][0]["id"]
    for number in range(num_more):
        near = objects[int(rng.integers(len(objects)))]
        mask = _moved(coco_mask.decode(near["segmentation"]), rng)
        detections.append(
            {
                "image_id": crowded if number >= 30 else near["image_id"],
                "category_id": int(rng.choice([near["category_id"], 1, 3, 5, 7])),
                "segmentation": _rle(mask),
                "score": float(rng.integers(0, 11)) / 10,
            }
        )
    rng.shuffle(detections)  # pyright: ignore[reportArgumentType]
    return truth, detections
