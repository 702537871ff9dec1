"""Stage discover on a few crops in this process, for the tests of stages discover and label."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
from stage_inputs import inputs_of

from gcdis_ray.stages import discover
from gcdis_ray.store.artifacts import Artifact, Manifest
from gcdis_ray.store.schemas import CROPS

CONFIG = discover.Config.model_validate(
    {
        "gcdis": {
            "training": {"steps": 10, "batch_size": 8, "micro_batches": 2, "lr": 0.01},
            "model": {
                "encoder": {
                    "body": "resnet",
                    "input_px": 16,
                    "blocks": [1],
                    "widths": [8],
                    "stem_width": 8,
                },
                "heads": {"projection_hidden": 8, "projection_dim": 8},
            },
            "discovery": {
                "queue_size": 16,
                "cache_px": 16,
                "momentum": 0.5,
                "losses": {"clustering_from": 0.2},
                "prototypes": {"start": "linkage"},
            },
            "snapshots": 3,
        }
    }
)
CLASSES = [
    {"class_index": 1, "category_id": 40, "name": "dog"},
    {"class_index": 0, "category_id": 7, "name": "cat"},
]


def crop_row(index: int, label: int) -> dict:
    rng = np.random.default_rng(index)
    image, mask = rng.integers(0, 255, (18, 16, 3)), np.zeros((18, 16))
    mask[4:12, 4:12] = 255
    return dict(
        crop_index=index,
        image_id=index // 2,
        source_id=100 + index,
        class_index=label,
        window_xyxy=[0, 0, 16, 18],
        bbox_xyxy=[4.0, 4.0, 12.0, 12.0],
        jpeg=cv2.imencode(".jpg", image)[1].tobytes(),
        mask_png=cv2.imencode(".png", mask)[1].tobytes(),
    )


class WriteCrops:
    """Shard task: crops of the given labels, as stage crop would leave them."""

    def __init__(self, shards: list[list[int]]) -> None:
        self.shards = shards

    def open(self, device: str):
        starts = np.cumsum([0] + [len(shard) for shard in self.shards])

        def rows(index: int):
            labels = self.shards[index]
            table = [crop_row(int(starts[index]) + i, y) for i, y in enumerate(labels)]
            return {"crops": pa.Table.from_pylist(table, schema=CROPS)}

        return rows


SHARDS = [[0, 1, 0, 1, 0], [-1, -1, -1, -1], [], [-1, -1, -1]]


def artifact(work) -> Artifact:
    manifest = Manifest("all", "key", 1, {}, {}, None, None, dict(work.files))
    return Artifact(manifest, work.opener)


def run_discover(work, config: discover.Discovery = CONFIG):
    """``work`` with a few crops, a class table and what stage discover makes of them."""
    work.map_shards(WriteCrops(SHARDS), [], gives=["crops"], args=[{}] * 4)
    work.write_json("classes", CLASSES)
    work.write_json("class_count", {"num_known": 2, "num_novel": 3, "num_classes": 5})
    discover.run(inputs_of(discover, artifact(work)), config, work)
    return work
