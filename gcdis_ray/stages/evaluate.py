"""evaluate: how good is it? The only stage that may open the sealed ground truth.

Crops of unlabeled images are matched to true objects, which gives clustering accuracy, NMI and ARI.
The segmenter's predictions on validation images are scored under a map from its outputs to true
classes, found as ``mapping`` says. Without ground truth every number is null, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from gcdis_ray.artifacts import Artifact, Size, Table
from gcdis_ray.config import StageConfig
from gcdis_ray.runtime.base import Work
from gcdis_ray.tasks.mapping_config import MappingConfig

if TYPE_CHECKING:
    from gcdis_ray.tasks.class_columns import ClassColumns
    from gcdis_ray.tasks.crop_truth import CropTruth
    from gcdis_ray.tasks.detection_block import DetectionScores

VERSION = 4
TAKES = (
    "ingest",
    "ground_truth",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "label",
    "segment",
)
SEEDED = True


class Config(StageConfig):
    """How the run is scored."""

    min_score: float = Field(1e-3, ge=0, le=1, description="detections below it are dropped")
    max_per_image: int = Field(
        100, ge=1, le=10_000, description="detections scored per image; LVIS's rules say 300"
    )
    keep_per_image: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="detections stored per image, at least max_per_image; mapping.drop: "
        "before_topk fills up from them. None: max_per_image, and three times as many with "
        "before_topk",
    )
    mapping: MappingConfig = MappingConfig.model_validate({})
    match_iou: float = Field(
        0.5, gt=0, le=1, description="least IoU of a crop, or a detection, with its true object"
    )
    kmeans_n_init: int = Field(5, ge=1, le=100, description="starts of the k-means baseline")
    kmeans_on_pixels: bool = Field(
        True,
        description="also cluster crops by their pixels, shrunk to 16 x 16 (sets below 100 000)",
    )

    @model_validator(mode="after")
    def _keeps_enough(self) -> Config:
        if self.keep_per_image is not None and self.keep_per_image < self.max_per_image:
            raise ValueError(
                f"keep_per_image {self.keep_per_image} is below max_per_image {self.max_per_image}"
            )
        return self

    @property
    def kept(self) -> int:
        """Detections stored per image."""
        times = 3 if self.mapping.drop == "before_topk" else 1
        return self.keep_per_image or times * self.max_per_image


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Detections of the validation images, a fifth of all."""
    rows = inputs["ingest"].rows // 5 * min(config.kept, 80)
    return Size(rows, 200 * rows)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    """Write ``predictions`` (validation images), what they are scored by, and JSON ``metrics``."""
    from gcdis_ray.tasks.inference import Detect

    segment = inputs["segment"]
    detect = Detect(
        weights=segment.tensor_file("segmenter"),
        spec=segment.json("segmenter_spec"),
        split="validation",
        gives="predictions",
        min_score=config.min_score,
        max_per_image=config.kept,
    )
    images = inputs["ingest"].table("images")
    predictions = work.map_shards(detect, [images], gives=("predictions",))["predictions"]
    work.write_json("metrics", score(inputs, predictions, config, work))


def score(
    inputs: Mapping[str, Artifact], predictions: Table, config: Config, work: Work
) -> dict[str, Any]:
    """The metrics of predictions, however they came about; writes the tables it counts in."""
    from gcdis_ray.tasks.class_columns import ClassColumns
    from gcdis_ray.tasks.crop_truth import CropTruth, MatchCrops
    from gcdis_ray.tasks.scoring import Settings, metrics_document

    sealed = inputs["ground_truth"]
    matched = work.map_shards(
        MatchCrops(config.match_iou),
        [
            sealed.table("truth_instances"),
            inputs["label"].table("pseudo_labels"),
            inputs["propose"].table("proposals"),
        ],
        gives=("crop_truth", "class_objects"),
    )
    truth = CropTruth.read(matched["crop_truth"], matched["class_objects"])
    classes = ClassColumns.read(sealed, inputs["ingest"])
    settings = Settings(config.match_iou, config.kmeans_n_init, config.kmeans_on_pixels, work.seed)
    detection = _detection(inputs, predictions, classes, truth, config, work)
    return metrics_document(inputs, classes, truth, detection, settings)


def _detection(
    inputs: Mapping[str, Artifact],
    predictions: Table,
    classes: ClassColumns,
    truth: CropTruth,
    config: Config,
    work: Work,
) -> DetectionScores:
    from gcdis_ray.tasks.detection_block import score_detections

    mapping, info = _mapping(inputs, predictions, classes, truth, config, work)
    return score_detections(
        inputs["ground_truth"],
        predictions,
        classes,
        mapping,
        info,
        config.max_per_image,
        work,
    )


def _mapping(
    inputs: Mapping[str, Artifact],
    predictions: Table,
    classes: ClassColumns,
    truth: CropTruth,
    config: Config,
    work: Work,
) -> tuple[dict[int, int], dict[str, Any]]:
    """Output -> column of the class it stands for, and how that was found, for the metrics."""
    from gcdis_ray.tasks.cluster_mapping import (
        CountDetections,
        counts_of_crops,
        match_outputs,
    )
    from gcdis_ray.tasks.scoring import num_outputs

    rule, note = config.mapping, None
    if rule.source == "train_gt" and not truth.num_matched:
        rule = rule.model_copy(update={"source": "detections"})
        note = "no ground truth for unlabeled images to map by"
    if rule.source == "train_gt":
        labels = inputs["label"].table("pseudo_labels").read(["class_index"])
        counts = [counts_of_crops(truth, labels["class_index"].to_numpy())]
    else:
        true = inputs["ground_truth"].table("truth_instances")
        if rule.source == "gt_crops":
            task = _true_crops(inputs)
            tables = [inputs["ingest"].table("images"), true]
        else:
            half = rule.source == "split_val"
            task = CountDetections(config.match_iou, config.max_per_image, half)
            tables = [true, predictions]
        found = work.map_shards(task, tables, gives=("cluster_counts",))["cluster_counts"]
        counts = list(found.iter_shards())
    outputs = inputs["discover"].json("discovered_classes")
    mapping = match_outputs(counts, classes, num_outputs(classes, outputs), rule.scope)
    ids = {k: classes.categories[c]["category_id"] for k, c in sorted(mapping.items())}
    return mapping, {
        "source": rule.source,
        "scope": rule.scope,
        "drop": rule.drop,
        "name": rule.name,
        "leak_free": rule.leak_free,
        "protocol": rule.words(config.match_iou, config.max_per_image, config.kept),
        "note": note,
        "class_to_category": {str(k): category for k, category in ids.items()},
    }


def _true_crops(inputs: Mapping[str, Artifact]) -> Any:
    """True objects, cut out like the crops that the discovery model has learned from."""
    from gcdis_ray.stages import crop
    from gcdis_ray.tasks.cluster_mapping import CountTrueCrops

    discover = inputs["discover"]
    config = crop.Config.model_validate(inputs["crop"].manifest.config)
    return CountTrueCrops(
        spec=discover.json("encoder_spec"),
        weights=discover.tensor_file("encoder"),
        cut=partial(crop.cut_crop, config=config),
    )
