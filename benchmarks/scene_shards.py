"""Synthetic photographs with objects in the tables that ingest writes, for benchmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.schemas import IMAGES, INSTANCES, PROPOSALS
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage, encode_table, file_record

HEIGHT, WIDTH, OBJECTS = 480, 640, 8
_GRAIN = 16.0  # grey levels: such a JPEG of quality 90 has about 165 kB


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG of quality 90: soft shapes under grain."""
    coarse = rng.integers(0, 255, (HEIGHT // 40, WIDTH // 40, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    image += rng.normal(0, _GRAIN, (HEIGHT, WIDTH, 1))
    bgr = image.clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def object_mask(rng: np.random.Generator) -> tuple[list[int], str, float]:
    """Box, RLE and area of a wobbly blob, its sides as long as those of objects in COCO often are:
    20 to 300 px, evenly spread in their logarithm."""
    w, h = (int(side) for side in np.exp(rng.uniform(np.log(20), np.log(300), 2)))
    x0, y0 = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 0.4 + 0.1 * rng.random(40)
    points = np.stack([w * (0.5 + radius * np.cos(angle)), h * (0.5 + radius * np.sin(angle))], 1)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return [x0, y0, x0 + w, y0 + h], encode_window(mask, x0, y0, HEIGHT, WIDTH), float(mask.sum())


def write_scenes(folder: Path, num_shards: int, per_shard: int, distinct: int = 40) -> list[Table]:
    """Tables ``images``, ``instances`` and an empty ``proposals``: labeled images of 8 objects.

    Args:
        distinct: photographs made; they take turns.
    """
    rng = np.random.default_rng(0)
    photographs = [photograph(rng) for _ in range(distinct)]
    objects = [[object_mask(rng) for _ in range(OBJECTS)] for _ in range(distinct)]
    storage = LocalStorage(str(folder))
    records: dict[str, list[FileRecord]] = {"images": [], "instances": [], "proposals": []}
    size = dict(height_px=HEIGHT, width_px=WIDTH)
    for shard in range(num_shards):
        images, instances = [], []
        for image_id in range(shard * per_shard, (shard + 1) * per_shard):
            what = image_id % distinct
            images.append(
                dict(image_id=image_id, uri=f"{image_id}.jpg", bytes=photographs[what])
                | dict(turn=1, sha256="", split="labeled", **size)
            )
            instances += [
                dict(instance_id=OBJECTS * image_id + place, image_id=image_id, category_id=1)
                | dict(class_index=0, bbox_xyxy=box, mask_rle=rle, area_px=area, iscrowd=False)
                | size
                for place, (box, rle, area) in enumerate(objects[what])
            ]
        for name, schema, rows in (
            ("images", IMAGES, images),
            ("instances", INSTANCES, instances),
            ("proposals", PROPOSALS, []),
        ):
            table = pa.Table.from_pylist(rows, schema)
            data, path = encode_table(table), f"{name}/part-{shard:05d}.parquet"
            storage.write(f"bench/{path}", data)
            records[name].append(file_record(path, data, table.num_rows))
    schemas = {"images": IMAGES, "instances": INSTANCES, "proposals": PROPOSALS}
    opener = ArtifactOpener(storage, "bench", schemas)
    return [Table(name, tuple(files), opener) for name, files in records.items()]
