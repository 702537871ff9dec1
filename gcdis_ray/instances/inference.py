"""Running a trained detector over the images of one split: proposals, or named predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from gcdis_ray.data.images.image_check import decode_rgb
from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.instances.detector import Detector
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.external_masks import proposal_id
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.training_images import fitted_size, resized
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import SCHEMAS

_SIZE_COLUMNS = ("image_id", "height_px", "width_px")


def detector_spec(
    detector: DetectorConfig, num_classes: int, classifier: ClassifierConfig | None = None
) -> dict[str, Any]:
    """What :class:`Detect` needs beside the weights, as plain JSON."""
    return {
        "detector": detector.model_dump(mode="json"),
        "num_classes": num_classes,
        "classifier": classifier.model_dump(mode="json") if classifier else None,
    }


def load_detector(weights: TensorFile, spec: Mapping[str, Any], device: str) -> Detector:
    """The detector that a stage stored, ready to infer on ``device``."""
    detector = DetectorConfig(**spec["detector"])
    detector = detector.model_copy(update={"weights": None})  # all weights are in the artifact
    classifier = ClassifierConfig(**spec["classifier"]) if spec["classifier"] else None
    model = build_mask_rcnn(detector, spec["num_classes"], 0, classifier)
    model.load_state_dict(weights.load())
    return model.to(device).eval()


def see(model: Detector, file: bytes) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """An image as the net sees it, uint8 (3, h, w), and image px per net px as factors (4,) of a
    box.

    Args:
        file: the encoded image.
    """
    pixels = decode_rgb(file)
    height, width = pixels.shape[:2]
    sides = (model.config.min_side_px, model.config.max_side_px)
    seen = resized(pixels, fitted_size(height, width, sides))
    scale = np.array([width / seen.shape[1], height / seen.shape[0]] * 2, np.float32)
    return torch.from_numpy(seen).permute(2, 0, 1).contiguous(), scale


@dataclass(frozen=True)
class Detect:
    """Shard task over ``[images]``: objects of the images of one split, an empty table for others.

    Images go through the net one at a time, so a result depends on its image alone.

    Args:
        weights, spec: a detector and its :func:`detector_spec`.
        split: whose images.
        gives: member to write. ``proposals`` ignores classes.
        min_score, nms_iou, max_per_image, score: see ``InstanceHeads.detect``.
        files: reads the images' files.
    """

    weights: TensorFile
    spec: Mapping[str, Any]
    split: str
    gives: Literal["proposals", "predictions"]
    min_score: float = 1e-3
    nms_iou: float = 0.5
    max_per_image: int = 100
    score: Literal["box", "rpn", "mean"] = "box"
    files: ImageFiles = field(default_factory=ImageFiles)
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        model = load_detector(self.weights, self.spec, device)
        schema = SCHEMAS[self.gives]

        def run(index: int, images: pa.Table) -> Mapping[str, pa.Table]:
            mine = images.filter(pc.field("split") == self.split)
            rows = []
            for image, file in zip(
                mine.select(_SIZE_COLUMNS).to_pylist(), self.files.read(mine), strict=True
            ):
                rows += self._detect(model, image, file)
            for place, row in enumerate(rows):
                row["proposal_id"] = proposal_id(index, place)
            return {self.gives: pa.Table.from_pylist(rows, schema=schema)}  # its columns only

        return run

    def _detect(
        self, model: Detector, image: Mapping[str, Any], file: bytes
    ) -> list[dict[str, Any]]:
        height, width = image["height_px"], image["width_px"]
        seen, scale = see(model, file)
        found = model.detect(
            [seen],
            min_score=self.min_score,
            nms_iou=self.nms_iou,
            max_per_image=self.max_per_image,
            score=self.score,
        )[0]
        boxes = found.boxes_xyxy.cpu().numpy() * scale
        rows = []
        for box, class_index, score, mask in zip(
            boxes,
            found.class_index.tolist(),
            found.scores.tolist(),
            found.masks.cpu().numpy(),
            strict=True,
        ):
            window, x0, y0 = paste(mask, box, height, width)
            if window.any():
                rows.append(
                    {
                        "image_id": image["image_id"],
                        "bbox_xyxy": box.tolist(),
                        "mask_rle": encode_window(window, x0, y0, height, width),
                        "height_px": height,
                        "width_px": width,
                        "area_px": float(window.sum()),
                        "class_index": class_index,
                        "score": score,
                        "objectness": score,
                        "origin": "model",
                    }
                )
        return rows


def paste(
    mask_MM: NDArray[np.float32], box_xyxy: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.bool_], int, int]:
    """A mask seen through its box, as a bitmap of the box's window of whole pixels.

    Values at pixel centres are interpolated linearly between those of the mask's cells (beyond
    the outermost cell centres they stay constant) and cut at 0.5.

    Returns:
        the bitmap (h, w), and column and row of its first pixel. It may be empty.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    left, right = max(0, int(np.floor(x0))), min(width, int(np.ceil(x1)))
    top, bottom = max(0, int(np.floor(y0))), min(height, int(np.ceil(y1)))
    side = mask_MM.shape[0]
    columns = _blend(np.arange(left, right) + 0.5, x0, x1, side)
    rows = _blend(np.arange(top, bottom) + 0.5, y0, y1, side)
    return rows @ mask_MM @ columns.T >= 0.5, left, top


def _blend(
    centres: NDArray[np.floating], low: float, high: float, side: int
) -> NDArray[np.float32]:
    """(n, side) weights of the mask's cells at n pixel centres; 0 outside the box."""
    inside = (centres > low) & (centres < high)
    place = (centres - low) / max(high - low, 1e-6) * side - 0.5
    place = np.clip(place, 0, side - 1)
    first = np.minimum(place.astype(np.int64), side - 2)
    weights = np.zeros((len(centres), side), np.float32)
    rows = np.arange(len(centres))
    weights[rows, first] = 1 - (place - first)
    weights[rows, first + 1] = place - first
    return weights * inside[:, None]
