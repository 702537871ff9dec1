"""Masks for labeled objects that came with a box only: table ``instance_masks``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.instances.inference import load_detector
from gcdis_ray.instances.net_pixels import mask_in_image
from gcdis_ray.masks import coco_rle
from gcdis_ray.masks.instance_masks import needs_mask
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import INSTANCE_MASKS

_OBJECT_COLUMNS = ("instance_id", "image_id", "bbox_xyxy", "height_px", "width_px")


@dataclass(frozen=True)
class RectangleMasks:
    """Shard task over ``[instances]``: the pixels whose centre lies in the box are the mask."""

    def open(self, device: str) -> Callable[..., ShardOutput]:
        full = np.ones((2, 2), np.float32)

        def fill(index: int, instances: pa.Table) -> ShardOutput:
            rows = _bare(instances)
            masks = [
                mask_in_image(full, _boxes([row])[0], row["height_px"], row["width_px"])
                for row in rows
            ]
            return _output(rows, masks, "box")

        return fill


@dataclass(frozen=True)
class ModelMasks:
    """Shard task over ``[images, instances]``: what the detector sees in each true box. On a CPU
    images go through it one at a time, on a GPU by the batch.

    Args:
        weights, spec: a detector and its ``detector_spec``.
        files: reads the images' files.
    """

    weights: TensorFile
    spec: Mapping[str, Any]
    files: ImageFiles = field(default_factory=ImageFiles)
    wants_gpu = True

    def open(self, device: str) -> Callable[..., ShardOutput]:
        detector = load_detector(self.weights, self.spec, device)

        def fill(index: int, images: pa.Table, instances: pa.Table) -> ShardOutput:
            by_image: dict[int, list[dict[str, Any]]] = {}
            for row in _bare(instances):
                by_image.setdefault(row["image_id"], []).append(row)
            wanted = np.isin(images["image_id"].to_numpy(), list(by_image))
            shown = images.filter(pa.array(wanted))
            objects = [by_image[image_id] for image_id in shown["image_id"].to_pylist()]
            pixels = (file.pixels() for file in self.files.read(shown))
            masks = detector.masks_of_all_boxes(zip(pixels, map(_boxes, objects), strict=True))
            return _output(list(chain(*objects)), list(chain(*masks)), "model")

        return fill


def _bare(instances: pa.Table) -> list[dict[str, Any]]:
    return instances.filter(pa.array(needs_mask(instances))).select(_OBJECT_COLUMNS).to_pylist()


def _boxes(objects: list[dict[str, Any]]) -> NDArray[np.float32]:
    return np.array([row["bbox_xyxy"] for row in objects], np.float32)


def _output(objects: list[dict[str, Any]], masks: list[str | None], origin: str) -> ShardOutput:
    """Rows of the masks that have a pixel; how many have none is counted."""
    rows = [
        {
            "instance_id": found["instance_id"],
            "image_id": found["image_id"],
            "mask_rle": mask,
            "area_px": coco_rle.area(mask, found["height_px"], found["width_px"]),
            "origin": origin,
        }
        for found, mask in zip(objects, masks, strict=True)
        if mask is not None
    ]
    table = pa.Table.from_pylist(rows, schema=INSTANCE_MASKS)
    empty = len(objects) - len(rows)
    return ShardOutput({"instance_masks": table}, {"empty_masks": empty} if empty else {})
