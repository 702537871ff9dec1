"""Running a trained detector over the images of one split: proposals, or named predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.data.images.image_files import ImageFile, ImageFiles
from gcdis_ray.errors import ArtifactError
from gcdis_ray.instances.detector import Detector, Found, Limits, Score
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.external_masks import proposal_id
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import PREDICTIONS, PROPOSALS

_MASK_RCNN = "mask_rcnn"


def detector_spec(
    detector: DetectorConfig, num_classes: int, classifier: ClassifierConfig | None = None
) -> dict[str, Any]:
    """What :func:`load_detector` needs beside the weights, as plain JSON."""
    return {
        "kind": _MASK_RCNN,
        "detector": detector.model_dump(mode="json"),
        "num_classes": num_classes,
        "classifier": classifier.model_dump(mode="json") if classifier else None,
    }


def load_detector(weights: TensorFile, spec: Mapping[str, Any], device: str) -> Detector:
    """The detector that a stage stored, ready to infer on ``device``: :func:`open_detector`."""
    return open_detector(weights.load(), spec, device)


def open_detector(weights: Mapping[str, Tensor], spec: Mapping[str, Any], device: str) -> Detector:
    """A detector with these weights.

    Args:
        spec: its :func:`detector_spec`, whose ``kind`` says which detector it is.

    Raises:
        ArtifactError: an unknown kind.
    """
    if spec.get("kind") != _MASK_RCNN:
        raise ArtifactError(
            f"a detector of kind {spec.get('kind')!r}; known: {_MASK_RCNN}",
            fix="use the version of gcdis that made it, or run the stage that trains it again",
        )
    detector = DetectorConfig(**spec["detector"])
    detector = detector.model_copy(update={"weights": None})  # all weights are in the artifact
    classifier = ClassifierConfig(**spec["classifier"]) if spec["classifier"] else None
    model = build_mask_rcnn(detector, spec["num_classes"], 0, classifier)
    model.load_state_dict(weights)
    return model.to(device).eval()


@dataclass(frozen=True)
class Detect:
    """Shard task over ``[images]``: objects of the images of one split, an empty table for others.

    On a CPU images go through the net one at a time, so a result depends on its image alone, bit by
    bit; on a GPU, by the batch, all but rounding.

    Args:
        weights, spec: a detector and its :func:`detector_spec`.
        split: whose images.
        gives: member to write. ``proposals`` ignores classes.
        min_score, nms_iou, max_per_image, score: see
            :class:`~gcdis_ray.instances.detector.Limits`.
        files: reads the images' files.
    """

    weights: TensorFile
    spec: Mapping[str, Any]
    split: str
    gives: Literal["proposals", "predictions"]
    min_score: float = 1e-3
    nms_iou: float = 0.5
    max_per_image: int = 100
    score: Score = "box"
    files: ImageFiles = field(default_factory=ImageFiles)
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        detector = load_detector(self.weights, self.spec, device)
        limits = Limits(self.min_score, self.nms_iou, self.max_per_image, self.score)
        schema = PROPOSALS if self.gives == "proposals" else PREDICTIONS

        def run(index: int, images: pa.Table) -> Mapping[str, pa.Table]:
            mine = images.filter(pc.field("split") == self.split)
            sizes: list[tuple[int, int]] = []
            found = detector.find_all(_decoded(self.files.read(mine), sizes), limits)
            ids = mine["image_id"].to_pylist()
            rows = [
                row
                for image_id, size, objects in zip(ids, sizes, found, strict=True)
                for row in _rows(image_id, size, objects)
            ]
            for place, row in enumerate(rows):
                row["proposal_id"] = proposal_id(index, place)
            return {self.gives: pa.Table.from_pylist(rows, schema=schema)}  # its columns only

        return run


def _decoded(
    files: Iterable[ImageFile], sizes: list[tuple[int, int]]
) -> Iterator[NDArray[np.uint8]]:
    """Pixels of each file in turn, and in ``sizes`` their (height, width)."""
    for file in files:
        pixels = file.pixels()
        sizes.append((pixels.shape[0], pixels.shape[1]))
        yield pixels


def _rows(image_id: int, size: tuple[int, int], found: Sequence[Found]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "bbox_xyxy": one.bbox_xyxy,
            "mask_rle": one.mask_rle,
            "height_px": size[0],
            "width_px": size[1],
            "area_px": coco_rle.area(one.mask_rle, *size),
            "class_index": one.class_index,
            "score": one.score,
            "objectness": one.score,
            "origin": "model",
        }
        for one in found
    ]
