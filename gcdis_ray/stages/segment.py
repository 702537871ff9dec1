"""segment: one model that finds, masks and names objects of known and discovered classes.

A Mask R-CNN learns from the labeled objects and, with weights that fade for unreliable ones, from
the pseudo-labels of the unlabeled images. It starts from the proposer unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from gcdis_ray.clustering.reliability import Decay
from gcdis_ray.config import Closed, StageConfig, TrainingConfig
from gcdis_ray.errors import DataError
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.training_images import ImageAugmentConfig
from gcdis_ray.masks.instance_masks import count_masks
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Inputs, document, optional, table, tensors
from gcdis_ray.store.schemas import HISTORY

ID = "segment"
VERSION = 2
TAKES = (
    "images",
    optional("image_index"),
    "instances",
    optional("source"),
    "proposals",
    "proposer_spec",
    optional("proposer"),
    optional("instance_masks"),
    "discovered_classes",
    "pseudo_labels",
)
GIVES = (
    tensors("segmenter"),
    tensors("snapshot_*", optional=True),
    table("history", HISTORY),
    document("segmenter_spec"),
    document("segmenter_classes"),
)
SEEDED = True


class ReliabilityConfig(Closed):
    """Weight kappa of a pseudo-labeled instance (GCDIS, reliability-based dynamic learning)."""

    decay: Decay = Field(
        "quadratic",
        description="quadratic (the paper: diverse early, strict late), none, a cut for good, "
        "or either with ranks over all classes",
    )
    scale: float = Field(1.0, ge=0, le=10, description="weight of a fully trusted pseudo-label")
    drop_share: float = Field(0.5, ge=0, le=1, description="of the modes that cut")


class Config(StageConfig):
    detector: DetectorConfig | None = Field(None, description="none: as the proposer's")
    classifier: ClassifierConfig = ClassifierConfig.model_validate({})
    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 250, "batch_size": 8, "optimizer": "adamw", "lr": 2e-3, "warmup": 0.1}
    )
    augment: ImageAugmentConfig = ImageAugmentConfig.model_validate({})
    init_from_proposer: bool = Field(
        True, description="start from the proposer's weights, if it has any; only classes are new"
    )
    model_masks: Literal["ignore", "use"] = Field(
        "ignore",
        description="whether masks that propose made for labeled boxes teach the mask head; boxes "
        "and classes are learned either way",
    )
    labeled_share: float = Field(0.5, ge=0, le=1, description="share of labeled images in a batch")
    reliability: ReliabilityConfig = ReliabilityConfig.model_validate({})
    image_cache_mb: int = Field(1024, ge=2, le=1_000_000, description="image files held in memory")

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"image_cache_mb"})

    def key_fields(self) -> dict[str, Any]:
        detector = self.detector.key_fields() if self.detector else None
        fields = super().key_fields() | {"detector": detector}
        if self.training.precision == "bf16" and self.classifier.kind == "cosine":
            fields["cosines"] = "fp32"  # whatever the rest is in; with fp32 nothing to tell
        return fields


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    detector, where = config.detector, "stages.segment.detector"
    if detector is None and getattr(givers.get("proposals"), "source", None) == "external":
        detector, where = getattr(givers["proposals"], "detector", None), "stages.propose.detector"
    if detector and (detector.backbone != "small" or detector.weights):
        from gcdis_ray.instances.detector_backbone import check_body

        check_body(detector, where)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """The weights; its longest table is the history of training."""
    from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
    from gcdis_ray.models.stored import stored_bytes

    propose = inputs["proposals"]
    weights = propose.weight_bytes  # the same detector but for the classifier, unless told
    if config.detector or not weights:
        detector = config.detector or DetectorConfig.model_validate({})
        detector = detector.model_copy(update={"weights": None})
        weights = stored_bytes(lambda: build_mask_rcnn(detector, 100, 0, config.classifier))
    return Size(700, weights, 2 * inputs["images"].image_bytes + propose.bytes, weights)


def _some_have_masks(inputs: Inputs) -> bool:
    return count_masks(inputs.table("instances")).annotated > 0


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write tensors ``segmenter``, table ``history``, JSON ``segmenter_spec``,
    ``segmenter_classes`` (the discovered classes, whose order is that of the outputs)."""
    from gcdis_ray.data.images.image_files import ImageFiles, listed_images
    from gcdis_ray.instances.inference import detector_spec
    from gcdis_ray.instances.segmentation import SegmentationTask

    classes = inputs.json("discovered_classes")
    proposer = inputs.json("proposer_spec")
    stored = proposer.get("detector")
    detector = config.detector or DetectorConfig(**(stored or {}))
    initialised = config.init_from_proposer and inputs.has("proposer")
    images = inputs.table("images")
    pseudo_labels = inputs.table("pseudo_labels")
    made = None
    of_images = proposer["source"] == "image"  # then annotated masks are not those of the objects
    if (config.model_masks == "use" or of_images) and inputs.has("instance_masks"):
        made = inputs.table("instance_masks")
    if not (initialised or made or pseudo_labels.num_rows or _some_have_masks(inputs)):
        raise DataError(
            "no labeled object has a mask and there is no pseudo-label: the mask head can learn "
            "from nothing",
            where="stages.segment.init_from_proposer",
            fix="set it to true, or stages.segment.model_masks: use",
        )
    listed = listed_images(inputs)
    splits = listed.read(["split"])["split"].to_pylist()
    task = SegmentationTask(
        config=config.training.over(splits.count("labeled") + splits.count("unlabeled")),
        seed=work.seed,
        # the proposer's weights include its backbone's
        detector=(
            detector.model_copy(update={"weights": None}) if initialised else detector.located()
        ),
        augment=config.augment,
        cache_mb=config.image_cache_mb,
        files=ImageFiles.of(inputs),
        images=images,
        listed=listed,
        instances=inputs.table("instances"),
        made=made,
        proposals=inputs.table("proposals"),
        pseudo_labels=pseudo_labels,
        proposer=inputs.tensor_file("proposer") if initialised else None,
        num_classes=len(classes),
        classifier=config.classifier,
        labeled_share=config.labeled_share,
        decay=config.reliability.decay,
        scale=config.reliability.scale,
        drop_share=config.reliability.drop_share,
    )
    work.fit(task)
    work.write_json("segmenter_spec", detector_spec(detector, len(classes), config.classifier))
    work.write_json("segmenter_classes", classes)
