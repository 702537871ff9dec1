"""propose: where are objects, of whatever class?

A class-agnostic Mask R-CNN learns from the labeled objects, all classes merged into one, and is
run over the unlabeled images. Or the user brings masks of any origin in a COCO results file. Or
every image is one object: crops that were cut elsewhere, or photographs of one thing each.

Labeled objects that came with a box only are given masks here: by the mask head, which sees each
true box, once the proposer is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from gcdis_ray.config import ENDPOINT, Closed, StageConfig, TrainingConfig
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.files.json_outline import named_errors
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.earlier_proposer import EarlierProposer
from gcdis_ray.instances.training_images import ImageAugmentConfig
from gcdis_ray.masks.instance_masks import MaskCount, count_masks
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size, Table, TensorFile, Workload
from gcdis_ray.store.members import Inputs, document, optional, table, tensors
from gcdis_ray.store.schemas import HISTORY, INSTANCE_MASKS, PROPOSALS, QUARANTINE
from gcdis_ray.store.source import SourceFolder, source_file

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "propose"
VERSION = 3
TAKES = ("images", optional("image_index"), "instances", optional("source"))
GIVES = (
    table("proposals", PROPOSALS),
    document("proposer_spec"),
    table("history", HISTORY),
    tensors("proposer", optional=True),
    tensors("snapshot_*", optional=True),
    tensors("init", optional=True),
    table("instance_masks", INSTANCE_MASKS, optional=True),
    table("quarantine", QUARANTINE, optional=True),
)
SEEDED = True
_RESULTS = "stages.propose.external.results"


class ExternalConfig(Closed):
    """Masks from elsewhere."""

    results: str = Field(
        description="JSON file, also s3://...: a list of {image_id, segmentation, score}"
    )
    endpoint: str | None = Field(None, description=f"of results in a bucket: {ENDPOINT}")
    fingerprint: Literal["content", "stat"] = Field(
        "content",
        description="how a changed file is noticed: by what it says, or by size and time of "
        "change, for files too large to read on every command",
    )
    max_rejected: float = Field(
        0.01, ge=0, le=1, description="share of unusable masks that stops the stage"
    )

    def key_fields(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"endpoint", "fingerprint"})

    def file(self) -> tuple[SourceFolder, str]:
        """Raises: DataError, StorageError: see :func:`gcdis_ray.store.source.source_file`."""
        return source_file(self.results, self.endpoint, _RESULTS)


class Config(StageConfig):
    source: Literal["model", "external", "image"] = Field(
        "model",
        description="train a proposer; read masks from a file; or take every image for one object, "
        "whatever boxes and masks its annotation has",
    )
    external: ExternalConfig | None = None
    detector: DetectorConfig = DetectorConfig.model_validate({})
    init: EarlierProposer | None = Field(
        None, description="none: from the seed, or from the weights of the detector's backbone"
    )
    box_masks: Literal["model", "rectangle", "leave_out"] = Field(
        "model",
        description="masks of labeled objects that have a box only: from the mask head, given the "
        "box; the box itself, which the mask head then learns as well; or none, and no crop",
    )
    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 300, "batch_size": 8, "optimizer": "adamw", "lr": 2e-3, "warmup": 0.1}
    )
    augment: ImageAugmentConfig = ImageAugmentConfig.model_validate({})
    objectness: Literal["box", "rpn", "mean"] = Field(
        "box",
        description="score of a proposal: the box head's, the region proposal's (kinder to novel "
        "objects if labeled images hold unannotated ones), or their geometric mean",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="lowest objectness kept")
    nms_iou: float = Field(0.7, gt=0, le=1, description="box overlap at which the better one stays")
    max_per_image: int = Field(
        100,
        ge=1,
        le=10_000,
        description="the best so many of an image are kept: average recall is measured on them, "
        "and stages.crop.max_proposals_per_image says how many of them become crops",
    )
    image_cache_mb: int = Field(1024, ge=1, le=1_000_000, description="image files held in memory")

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"image_cache_mb"})

    def key_fields(self) -> dict[str, Any]:
        init = {"sha256": self.init.sha256} if self.init else None
        external = self.external.key_fields() if self.external else None
        return super().key_fields() | {
            "external": external,
            "detector": self.detector.key_fields(),
            "init": init,
        }

    @model_validator(mode="after")
    def _has_results(self) -> Self:
        if self.source == "external" and self.external is None:
            raise ConfigError(
                "no file of masks is named",
                where=_RESULTS,
                fix="name a COCO results file, or set stages.propose.source: model",
            )
        return self


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    if config.source != "model":
        return
    labeled = getattr(givers.get("instances"), "labeled", None)
    if getattr(labeled, "has_class_folders", False):
        raise ConfigError(
            "class folders do not tell where objects are: a proposer can learn from nothing",
            where="stages.propose.source",
            fix="set it to image, or give labeled images an annotation file",
        )
    if config.init is not None:
        config.init.read(config.detector)
    elif config.detector.backbone != "small" or config.detector.weights is not None:
        from gcdis_ray.instances.detector_backbone import check_body

        check_body(config.detector, "stages.propose.detector")


def source(config: Config, show: object = None) -> str:
    """Fingerprint of the external masks; empty without."""
    if config.source != "external" or config.external is None:
        return ""
    folder, name = config.external.file()
    with named_errors(f"{folder.uri}/{name}"):
        if config.external.fingerprint == "stat" and (state := folder.state(name)):
            return f"{state.num_bytes}:{state.changed}"
        with folder.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Some five objects an image, and the proposer. Images are read to train and to infer. One an
    image, and none is read, where images are objects."""
    from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
    from gcdis_ray.models.stored import stored_bytes

    per_image = 1 if config.source == "image" else min(config.max_per_image, 5)
    rows, weights = inputs["images"].rows * per_image, 0
    if config.source == "model":
        detector = config.detector.model_copy(update={"weights": None})
        weights = stored_bytes(lambda: build_mask_rcnn(detector, 1, 0, None))
    read = 2 * inputs["images"].image_bytes + weights if weights else 150 * rows
    return Size(rows, 480 * rows + weights, read, weights)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Labeled images to train on, unlabeled ones to look through, where a model does it."""
    if config.source != "model":
        return Workload()
    splits = inputs["images"].splits
    return Workload(config.training.num_seen(splits.get("labeled", 0)), splits.get("unlabeled", 0))


def sections(view: RunView) -> Sequence[Section]:
    """Proposals in their images, and what of those from a file was set aside."""
    from gcdis_ray.report.run_pictures import proposed_pictures
    from gcdis_ray.report.set_aside import set_aside_section

    whole = (view.json("proposer_spec") or {}).get("source") == "image"  # nothing to be seen
    return [*([] if whole else proposed_pictures(view)), set_aside_section(view)]


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write tables ``proposals`` and ``history``, tensors ``proposer``, JSON ``proposer_spec``;
    ``instance_masks`` if a labeled object came without a mask or is its image, tensors ``init`` if
    told to start from an earlier proposer."""
    if config.source == "image":
        take_images(inputs, work)
        _write_untrained(config, work)
        return
    instances = inputs.table("instances")
    count = count_masks(instances)
    _check_masks(count, config)
    rectangles = None
    if count.missing:
        work.count("objects_without_mask", count.missing)
        if config.box_masks == "rectangle":
            rectangles = _rectangles(instances, work)
    if config.source == "external" and config.external is not None:
        import_masks(inputs, config, config.external, work)
        _write_untrained(config, work)
        return
    spec = _train(inputs, config, work, rectangles, bool(count.annotated or rectangles))
    if count.missing and config.box_masks == "model":
        from gcdis_ray.data.images.image_files import ImageFiles
        from gcdis_ray.instances.box_masks import ModelMasks

        fill = ModelMasks(work.tensor_file("proposer"), spec, ImageFiles.of(inputs))
        tables = [inputs.table("images"), instances]
        work.map_shards(fill, tables, gives=("instance_masks",), unit="shards of boxes")
    detect(inputs, config, work, work.tensor_file("proposer"), spec)


def _check_masks(count: MaskCount, config: Config) -> None:
    """Stop before training if what is asked for needs masks that nothing can give."""
    total = count.missing + count.annotated
    if not count.missing or config.box_masks == "rectangle":
        return
    boxes_only = f"{count.missing:,} of {total:,} labeled objects have a box and no mask"
    if config.box_masks == "leave_out":
        if not count.annotated:
            raise DataError(
                f"{boxes_only}, so leaving them out leaves none",
                where="stages.propose.box_masks",
                fix="use model (with stages.propose.init) or rectangle",
            )
    elif config.source == "external":
        raise DataError(
            f"{boxes_only}, and masks from a file bring no mask head to make one",
            where="stages.propose.source",
            fix="set stages.propose.box_masks to rectangle or leave_out, or source: model",
        )
    elif not count.annotated and config.init is None:
        raise DataError(
            f"{boxes_only}: the mask head can learn from nothing",
            where="stages.propose.init",
            fix="set it to a proposer that was trained with masks (artifact and sha256), or set "
            "stages.propose.box_masks: rectangle to take the boxes themselves for masks",
        )


def _rectangles(instances: Table, work: Work) -> Table:
    from gcdis_ray.instances.box_masks import RectangleMasks

    gives = ("instance_masks",)
    return work.map_shards(RectangleMasks(), [instances], gives=gives)["instance_masks"]


def _train(
    inputs: Inputs, config: Config, work: Work, rectangles: Table | None, learns_masks: bool
) -> dict[str, Any]:
    """Train the proposer; what it is made of."""
    from gcdis_ray.data.images.image_files import ImageFiles, listed_images
    from gcdis_ray.instances.inference import detector_spec
    from gcdis_ray.instances.proposing import ProposingTask

    listed = listed_images(inputs)
    num_labeled = listed.read(["split"])["split"].to_pylist().count("labeled")
    detector, start = config.detector.located(), None
    if config.init is not None:
        from safetensors.torch import load

        work.write_tensors("init", load(config.init.read(config.detector)))
        # the proposer's weights include its backbone's
        detector, start = detector.model_copy(update={"weights": None}), work.tensor_file("init")
    task = ProposingTask(
        config=config.training.over(num_labeled),
        seed=work.seed,
        detector=detector,
        augment=config.augment,
        cache_mb=config.image_cache_mb,
        files=ImageFiles.of(inputs),
        images=inputs.table("images"),
        listed=listed,
        instances=inputs.table("instances"),
        made=rectangles,
        start=start,
        learns_masks=learns_masks,
    )
    work.fit(task)
    spec = {"source": "model", **detector_spec(config.detector, 1)}
    work.write_json("proposer_spec", spec)
    return spec


def detect(
    inputs: Inputs, config: Config, work: Work, weights: TensorFile, spec: Mapping[str, Any]
) -> None:
    """Write table ``proposals``: what a proposer finds in unlabeled images.

    Args:
        weights, spec: of the proposer.
    """
    from gcdis_ray.data.images.image_files import ImageFiles
    from gcdis_ray.instances.inference import Detect

    images = inputs.table("images")
    task = Detect(
        weights=weights,
        spec=spec,
        split="unlabeled",
        files=ImageFiles.of(inputs),
        gives="proposals",
        min_score=config.min_score,
        nms_iou=config.nms_iou,
        max_per_image=config.max_per_image,
        score=config.objectness,
    )
    work.map_shards(task, [images], gives=("proposals",))


def import_masks(inputs: Inputs, config: Config, external: ExternalConfig, work: Work) -> None:
    """Write tables ``proposals`` and ``quarantine``: masks from a file."""
    from gcdis_ray.data.images.image_files import listed_images
    from gcdis_ray.instances.external_masks import ImportMasks, check_refused, read_results

    images = listed_images(inputs)
    masks, strangers = read_results(
        *external.file(),
        images,
        work.spool,
        lambda done, total: work.progress(done, total, "masks"),
    )
    work.count("external_other_images", strangers)
    importer = ImportMasks(config.min_score, config.max_per_image)
    work.map_shards(importer, [images, masks], gives=("proposals", "quarantine"))
    check_refused(work.table("quarantine"), masks.num_rows, external.max_rejected)


def take_images(inputs: Inputs, work: Work) -> None:
    """Write tables ``proposals`` and ``instance_masks``: every image is an object."""
    from gcdis_ray.data.images.image_files import listed_images
    from gcdis_ray.instances.whole_images import WholeImages, check_one_object

    images, instances = listed_images(inputs), inputs.table("instances")
    check_one_object(images, instances, "stages.propose.source")
    work.map_shards(WholeImages(), [images, instances], gives=("proposals", "instance_masks"))


def _write_untrained(config: Config, work: Work) -> None:
    """What a trained proposer would leave, where there is none."""
    work.write_table("history", pa.Table.from_pylist([], schema=HISTORY))
    detector = config.detector.model_dump(mode="json")  # what a segmenter is like, unless told
    work.write_json("proposer_spec", {"source": config.source, "detector": detector})
