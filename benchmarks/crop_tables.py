"""Synthetic crops in the tables the crop stage writes, for benchmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.schemas import CROPS
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage, encode_table, file_record


def crop_rows(
    num: int, longest_px: tuple[int, int], seed: int, num_known: int = 10, labeled: float = 0.3
) -> pa.Table:
    """Blobs on textured ground: longer sides spread over ``longest_px``, encoded as the
    crop stage does by default."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(num):
        longest, aspect = int(rng.integers(*longest_px, endpoint=True)), rng.uniform(0.6, 1)
        sides = (longest, max(8, round(longest * aspect)))
        height, width = sides if rng.random() < 0.5 else sides[::-1]
        coarse = rng.integers(0, 255, (9, 9, 3)).astype(np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 6, (height, width, 1))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        axes = (int(width * rng.uniform(0.25, 0.45)), int(height * rng.uniform(0.25, 0.45)))
        cv2.ellipse(mask, (width // 2, height // 2), axes, rng.uniform(0, 180), 0, 360, 255, -1)
        known = rng.random() < labeled
        rows.append(
            dict(
                crop_index=index,
                image_id=index // 8,
                source_id=index,
                class_index=int(rng.integers(num_known)) if known else -1,
                window_xyxy=[0, 0, width, height],
                bbox_xyxy=[0.0, 0.0, float(width), float(height)],
                jpeg=cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes(),
                mask_png=cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes(),
            )
        )
    return pa.Table.from_pylist(rows, schema=CROPS)


def write_crops(folder: Path, shards: list[pa.Table], repeats: int = 1) -> Table:
    """A table ``crops`` of real files below ``folder``, each of them named ``repeats`` times: rows
    without end from little disk."""
    storage = LocalStorage(str(folder))
    records: list[FileRecord] = []
    for index, shard in enumerate(shards):
        data = encode_table(shard)
        path = f"crops/part-{index:05d}.parquet"
        storage.write(f"bench/{path}", data)
        records.append(file_record(path, data, shard.num_rows))
    return Table(
        "crops", tuple(records * repeats), ArtifactOpener(storage, "bench", {"crops": CROPS})
    )
