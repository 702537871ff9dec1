"""evaluate: how good is it? The only stage that may open the sealed ground truth.

Crops of unlabeled images are matched to true objects, which gives clustering accuracy, NMI and ARI
and the map from discovered clusters to true classes. The segmenter's predictions on validation
images are scored with that map. Without ground truth every number is null, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from gcdis_ray.artifacts import Artifact, Size
from gcdis_ray.config import Closed, StageConfig
from gcdis_ray.runtime.base import Work

VERSION = 3
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


class MappingConfig(Closed):
    """Which true class a discovered class stands for when detections are scored."""

    source: Literal["train_gt", "detections"] = Field(
        default="train_gt",
        description="train_gt: crops of unlabeled training images, validation stays untouched; "
        "detections: validation detections matched to validation objects (transductive)",
    )
    scope: Literal["novel_only", "all"] = Field(
        default="novel_only", description="novel_only: known classes stand for themselves"
    )


class Config(StageConfig):
    """How the run is scored."""

    min_score: float = Field(1e-3, ge=0, le=1, description="detections below it are dropped")
    max_per_image: int = Field(100, ge=1, le=10_000, description="detections kept per image")
    mapping: MappingConfig = Field(default_factory=MappingConfig)
    match_iou: float = Field(
        0.5, gt=0, le=1, description="least IoU of a crop, or a detection, with its true object"
    )
    kmeans_n_init: int = Field(5, ge=1, le=100, description="starts of the k-means baseline")
    kmeans_on_pixels: bool = Field(
        True,
        description="also cluster crops by their pixels, shrunk to 16 x 16 (sets below 100 000)",
    )


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Detections of the validation images, a fifth of all."""
    rows = inputs["ingest"].rows // 5 * min(config.max_per_image, 80)
    return Size(rows, 200 * rows)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    """Write table ``predictions`` (validation images) and JSON ``metrics``."""
    from gcdis_ray.data.image_files import ImageFiles
    from gcdis_ray.tasks.inference import Detect
    from gcdis_ray.tasks.scoring import Scorer, Settings

    segment = inputs["segment"]
    detect = Detect(
        weights=segment.tensor_file("segmenter"),
        spec=segment.json("segmenter_spec"),
        split="validation",
        files=ImageFiles.of(inputs["ingest"]),
        gives="predictions",
        min_score=config.min_score,
        max_per_image=config.max_per_image,
    )
    images = inputs["ingest"].table("images")
    predictions = work.map_shards(detect, [images], gives=("predictions",))["predictions"]
    settings = Settings(
        mapping_source=config.mapping.source,
        mapping_scope=config.mapping.scope,
        match_iou=config.match_iou,
        kmeans_n_init=config.kmeans_n_init,
        kmeans_on_pixels=config.kmeans_on_pixels,
    )
    work.write_json("metrics", Scorer(inputs, predictions.read(), settings, work.seed).metrics())
