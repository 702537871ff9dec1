"""Synthetic sets of the shape of LVIS or Objects365, of any size, written as streams.

LVIS: 13 polygons of 24 corners an image, 1203 classes with a long tail, and for every image the
classes that it was searched for. Objects365: 11.8 boxes an image, 365 classes. All images are links
onto eight small JPEG files, so that a hundred thousand of them are made in seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

HEIGHT, WIDTH, FILES, CORNERS = 120, 160, 8, 24
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Shape:
    name: str
    classes: int
    objects_per_image: float
    polygons: bool
    federated: bool


LVIS = Shape("LVIS", 1203, 13.0, polygons=True, federated=True)
OBJECTS365 = Shape("Objects365", 365, 20e6 / 1.7e6, polygons=False, federated=False)


def write_set(folder: Path, shape: Shape, num_images: int) -> int:
    """Write ``images/`` and ``all.json``; returns the number of annotations."""
    import cv2

    (folder / "files").mkdir(parents=True)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(FILES):
        pixels = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        pixels = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"files/{number}.jpg"), pixels)
    for number in range(num_images):
        os.symlink(f"../files/{number % FILES}.jpg", folder / f"images/{number:07d}.jpg")
    with (folder / "all.json").open("w", buffering=1 << 20) as file:
        file.write('{"images": [')
        _write_list(file, _images(rng, num_images, shape))
        file.write('], "categories": [')
        _write_list(file, (_category(n, shape) for n in range(shape.classes)))
        file.write('], "annotations": [')
        _write_list(file, _annotations(rng, num_images, shape))
        file.write("]}")
    return round(shape.objects_per_image * num_images)


def _write_list(file: TextIO, records: Iterator[str]) -> None:
    for number, record in enumerate(records):
        file.write(f",{record}" if number else record)


def _images(rng: np.random.Generator, num_images: int, shape: Shape) -> Iterator[str]:
    for n in range(num_images):
        searched = ""
        if shape.federated:
            absent, partly = rng.integers(1, shape.classes + 1, (2, 7)).tolist()
            searched = (
                f', "neg_category_ids": {absent}, "not_exhaustive_category_ids": {partly[:2]}'
            )
        yield (
            f'{{"id": {n + 1}, "file_name": "{n:07d}.jpg", "height": {HEIGHT}, '
            f'"width": {WIDTH}{searched}}}'
        )


def _category(number: int, shape: Shape) -> str:
    more = {"frequency": "f", "synset": f"class{number}.n.01"} if shape.federated else {}
    return json.dumps({"id": number + 1, "name": f"class {number}", **more})


def _annotations(rng: np.random.Generator, num_images: int, shape: Shape) -> Iterator[str]:
    """In no order of images, as in the real files."""
    total = round(shape.objects_per_image * num_images)
    share = 1 / np.arange(1, shape.classes + 1)
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for start in range(0, total, _AT_ONCE):
        count = min(_AT_ONCE, total - start)
        image = rng.integers(1, num_images + 1, count).tolist()
        category = (rng.choice(shape.classes, count, p=share / share.sum()) + 1).tolist()
        center = np.stack([rng.uniform(26, side - 26, count) for side in (WIDTH, HEIGHT)], axis=1)
        if shape.polygons:
            radius = rng.uniform(5, 25, (count, 1)) * rng.uniform(0.8, 1.0, (count, CORNERS))
            points = center[:, None] + radius[..., None] * circle
            low, size = points.min(axis=1), np.ptp(points, axis=1)
            flat = points.reshape(count, -1).round(2).tolist()
        else:
            size = rng.uniform(8, 50, (count, 2))
            low, flat = center - size / 2, []
        area = size.prod(axis=1).round(2).tolist()
        boxes = np.concatenate([low, size], axis=1).round(2).tolist()
        for n in range(count):
            mask = f'"segmentation": [{flat[n]}], ' if shape.polygons else ""
            yield (
                f'{{"id": {start + n + 1}, "image_id": {image[n]}, "category_id": {category[n]}, '
                f'{mask}"bbox": {boxes[n]}, "area": {area[n]}, "iscrowd": 0}}'
            )
