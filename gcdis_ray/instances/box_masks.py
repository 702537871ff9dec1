"""Masks for labeled objects that came with a box only: table ``instance_masks``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.instances.detector import Detector
from gcdis_ray.instances.inference import load_detector, paste, see
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.masks.instance_masks import needs_mask
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import SCHEMAS

_OBJECT_COLUMNS = ("instance_id", "image_id", "bbox_xyxy", "height_px", "width_px")


@dataclass(frozen=True)
class RectangleMasks:
    """Shard task over ``[instances]``: the pixels whose centre lies in the box are the mask."""

    def open(self, device: str) -> Callable[..., ShardOutput]:
        full = np.ones((2, 2), np.float32)

        def fill(index: int, instances: pa.Table) -> ShardOutput:
            rows = _bare(instances)
            return _output(rows, [full] * len(rows), "box")

        return fill


@dataclass(frozen=True)
class ModelMasks:
    """Shard task over ``[images, instances]``: what the mask head sees in each true box.

    Images go through the net one at a time, so a mask depends on its image alone.

    Args:
        weights, spec: a detector and its ``detector_spec``.
        files: reads the images' files.
    """

    weights: TensorFile
    spec: Mapping[str, Any]
    files: ImageFiles = field(default_factory=ImageFiles)
    wants_gpu = True

    def open(self, device: str) -> Callable[..., ShardOutput]:
        model = load_detector(self.weights, self.spec, device)

        def fill(index: int, images: pa.Table, instances: pa.Table) -> ShardOutput:
            by_image: dict[int, list[dict[str, Any]]] = {}
            for row in _bare(instances):
                by_image.setdefault(row["image_id"], []).append(row)
            wanted = np.isin(images["image_id"].to_numpy(), list(by_image))
            shown = images.filter(pa.array(wanted))
            rows, masks = [], []
            for image_id, file in zip(
                shown["image_id"].to_pylist(), self.files.read(shown), strict=True
            ):
                rows += by_image[image_id]
                masks += _look(model, file, by_image[image_id])
            return _output(rows, masks, "model")

        return fill


def _bare(instances: pa.Table) -> list[dict[str, Any]]:
    return instances.filter(pa.array(needs_mask(instances))).select(_OBJECT_COLUMNS).to_pylist()


def _look(model: Detector, file: bytes, objects: list[dict[str, Any]]) -> list[NDArray[np.float32]]:
    """Probabilities (M, M) inside the box of each object of an image."""
    seen, scale = see(model, file)
    boxes = np.array([row["bbox_xyxy"] for row in objects], np.float32) / scale
    return list(model.masks_in_boxes([seen], [torch.from_numpy(boxes)])[0].cpu().numpy())


def _output(
    objects: list[dict[str, Any]], masks: list[NDArray[np.float32]], origin: str
) -> ShardOutput:
    """Rows of the masks that have a pixel; how many have none is counted."""
    rows = []
    for found, mask in zip(objects, masks, strict=True):
        height, width = found["height_px"], found["width_px"]
        window, x0, y0 = paste(mask, np.array(found["bbox_xyxy"], np.float32), height, width)
        if window.any():
            rows.append(
                {
                    "instance_id": found["instance_id"],
                    "image_id": found["image_id"],
                    "mask_rle": encode_window(window, x0, y0, height, width),
                    "area_px": float(window.sum()),
                    "origin": origin,
                }
            )
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["instance_masks"])
    empty = len(objects) - len(rows)
    return ShardOutput({"instance_masks": table}, {"empty_masks": empty} if empty else {})
