"""A run of thousands of classes, as far as its page goes: crops, spaces, assignments, labels."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image
from synthetic_run import artifact_of

from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.report.view import RunView

WIDTH = 32  # of embeddings


def many_classes(num_classes: int, num_known: int, per_class: int) -> RunView:
    """Classes of ``per_class`` to twice as many crops, the first ones known and half labeled."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(per_class, 2 * per_class, num_classes)
    class_N = rng.permutation(np.repeat(np.arange(num_classes), sizes))
    num = len(class_N)
    given_N = np.where((class_N < num_known) & (np.arange(num) % 2 == 0), class_N, -1)
    centres = rng.normal(size=(num_classes, WIDTH))
    index = np.arange(num)
    free = np.flatnonzero(given_N < 0)
    trust_N = rng.uniform(0.2, 1, num)
    jpegs, masks = zip(*(_crop(rng) for _ in range(16)), strict=True)

    def vectors(noise: float) -> pa.Array:
        rows = centres[class_N] + rng.normal(0, noise, (num, WIDTH))
        return as_lists((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))

    boxes = [[0, 0, 10, 10]] * num
    tables = {
        "crops": {
            "crop_index": index,
            "image_id": index,
            "source_id": index,
            "class_index": given_N,
            "window_xyxy": boxes,
            "bbox_xyxy": boxes,
            "jpeg": [jpegs[i % 16] for i in range(num)],
            "mask_png": [masks[i % 16] for i in range(num)],
        },
        "embeddings": {"crop_index": index, "class_index": given_N, "embedding": vectors(1.0)},
        "assignments": {
            "crop_index": index,
            "class_index": given_N,
            "cluster_id": class_N,
            "topk_ids": as_lists(class_N.astype(np.int32)[:, None]),
            "topk_probabilities": as_lists(trust_N.astype(np.float32)[:, None]),
            "embedding": vectors(0.4),
        },
        "pseudo_labels": {
            "crop_index": free,
            "image_id": free,
            "source_id": free,
            "cluster_id": class_N[free],
            "probability": trust_N[free],
            "stability": trust_N[free],
            "reliability": trust_N[free],
        },
    }
    classes = [
        {"class_index": c, "name": f"class number {c}", "known": c < num_known, "category_id": None}
        for c in range(num_classes)
    ]
    made = {
        "crop": artifact_of("crop", {"crops": tables["crops"]}, {}),
        "embed": artifact_of("embed", {"embeddings": tables["embeddings"]}, {}),
        "discover": artifact_of(
            "discover", {"assignments": tables["assignments"]}, {"discovered_classes": classes}
        ),
        "label": artifact_of("label", {"pseudo_labels": tables["pseudo_labels"]}, {}),
    }
    return RunView("many", "gcdis", 0, {}, "runs/many", [], made)


def _crop(rng: np.random.Generator) -> tuple[bytes, bytes]:
    """A noisy picture, which JPEG can do little with, and a mask."""
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    y, x = np.mgrid[-48:48, -48:48]
    mask = (x**2 + y**2 < rng.integers(20, 45) ** 2).astype(np.uint8) * 255
    found = []
    for picture, kind in ((pixels, "JPEG"), (mask, "PNG")):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, kind)
        found.append(buffer.getvalue())
    return found[0], found[1]
