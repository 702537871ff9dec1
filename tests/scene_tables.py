"""Small scenes of bright rectangles as in-memory tables, for tests of detectors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save
from tables import SCHEMAS

from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.store.artifacts import FileRecord, Table, TensorFile

COLORS = ((230, 60, 60), (60, 230, 60), (60, 60, 230))  # one per class
TINY = DetectorConfig.model_validate(
    {
        "width": 16,
        "fpn_channels": 16,
        "box_channels": 32,
        "mask_channels": 8,
        "mask_convs": 1,
        "mask_roi": 7,
        "blocks": (1, 1),
        "anchor_sizes_px": (16.0, 32.0),
        "min_side_px": 64,
        "max_side_px": 64,
        "rpn_pre_nms": 60,
        "rpn_post_nms": 30,
        "roi_batch": 16,
    }
)


@dataclass
class MemoryOpener:
    """Reads tables and files that a test holds in memory, and keeps which tables were asked for."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)

    def read_table(self, record: FileRecord, columns: Sequence[str] | None = None) -> pa.Table:
        self.reads.append(record.path)
        table = self.tables[record.path]
        return table if columns is None else table.select(list(columns))

    def read_bytes(self, record: FileRecord) -> bytes:
        return self.files[record.path]


def memory_table(name: str, shards: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    opener, records = MemoryOpener(), []
    for index, rows in enumerate(shards):
        table = pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
        opener.tables[f"{name}/{index}"] = table
        digest = hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()
        records.append(FileRecord(f"{name}/{index}", 1, digest, table.num_rows))
    return Table(name, tuple(records), opener)


def memory_tensors(tensors: Mapping[str, torch.Tensor]) -> TensorFile:
    opener = MemoryOpener(files={"weights": save(dict(tensors))})
    return TensorFile(FileRecord("weights", 1, ""), opener)


@dataclass(frozen=True)
class FakeArtifact:
    members: dict[str, Any]

    def has(self, member: str) -> bool:
        return member in self.members

    def table(self, member: str) -> Table:
        return self.members[member]

    def json(self, member: str) -> Any:
        return self.members[member]

    def tensor_file(self, member: str) -> TensorFile:
        return self.members[member]


@dataclass(frozen=True)
class RectangleScenes:
    """``images`` and ``instances`` as ingest writes them; ``truth`` rows of every image."""

    images: Table
    instances: Table
    truth: dict[int, list[dict[str, Any]]]

    @property
    def ingest(self) -> FakeArtifact:
        return FakeArtifact({"images": self.images, "instances": self.instances})


def rectangle_scenes(
    splits: Sequence[str] = ("labeled", "labeled", "unlabeled", "validation"),
    per_shard: int = 6,
    size: tuple[int, int] = (64, 64),
    seed: int = 0,
) -> RectangleScenes:
    """One shard per entry of ``splits``; two rectangles an image, in its left and right half."""
    rng = np.random.default_rng(seed)
    height, width = size
    images, instances, truth = [], [], {}
    for shard, split in enumerate(splits):
        image_rows, instance_rows = [], []
        for place in range(per_shard):
            image_id = 100 * (shard + 1) + place
            pixels = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
            truth[image_id] = []
            for half in range(2):
                class_index = int(rng.integers(len(COLORS)))
                h, w = rng.integers(14, 26, 2)
                y0 = int(rng.integers(0, height - h + 1))
                x0 = half * width // 2 + int(rng.integers(0, width // 2 - w + 1))
                pixels[y0 : y0 + h, x0 : x0 + w] = COLORS[class_index]
                rle = encode_window(np.ones((h, w), bool), x0, y0, height, width)
                truth[image_id].append(
                    {
                        "instance_id": 10 * image_id + half,
                        "image_id": image_id,
                        "category_id": class_index + 1,
                        "class_index": class_index,
                        "bbox_xyxy": [x0, y0, x0 + w, y0 + h],
                        "mask_rle": rle,
                        "height_px": height,
                        "width_px": width,
                        "area_px": float(h * w),
                        "iscrowd": False,
                    }
                )
            image_rows.append(
                {
                    "image_id": image_id,
                    "uri": f"{image_id}.png",
                    "bytes": _png(pixels),
                    "turn": 1,
                    "height_px": height,
                    "width_px": width,
                    "sha256": "",
                    "split": split,
                }
            )
            if split == "labeled":
                instance_rows += truth[image_id]
        images.append(image_rows)
        instances.append(instance_rows)
    return RectangleScenes(
        memory_table("images", images), memory_table("instances", instances), truth
    )


def boxes_only(instances: Table, every: int = 1) -> Table:
    """The same objects, every n-th one without its mask."""
    shards = []
    for shard in instances.iter_shards():
        rows = shard.to_pylist()
        for row in rows[::every]:
            row["mask_rle"] = None
        shards.append(rows)
    return memory_table(instances.name, shards)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
