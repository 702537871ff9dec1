"""evaluate: how good is it? The only stage that may open the sealed ground truth.

Crops of unlabeled images are matched to true objects, which gives clustering accuracy, NMI and ARI.
The segmenter's predictions on validation images are scored under a map from its outputs to true
classes, found as ``mapping`` says. Without ground truth every number is null, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import BEST
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Artifact, Size, Table

if TYPE_CHECKING:
    from gcdis_ray.evaluation.class_columns import ClassColumns
    from gcdis_ray.evaluation.cluster_mapping import CountTrueCrops
    from gcdis_ray.evaluation.crop_truth import CropTruth
    from gcdis_ray.evaluation.detection_block import OutputMap, Terms
    from gcdis_ray.evaluation.scored_images import Rules

VERSION = 6
TAKES = (
    "ingest",
    "ground_truth",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "label",
    "predict",
)
SEEDED = True


class Config(StageConfig):
    """How the run is scored."""

    max_per_image: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="detections scored per image. None: 100, and by LVIS's rules 300; these hold "
        "where the ground truth tells which classes an image was searched for",
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

    def check_kept(self, kept: int) -> None:
        """Whether enough detections per image are kept, whatever the rules.

        Raises:
            ConfigError: not enough.
        """
        best = self.max_per_image or max(BEST.values())
        more = self.mapping.drop == "before_topk"
        if kept < best + more:
            raise ConfigError(
                f"{kept} detections are kept per image, and the best {best} "
                + ("are to be filled up from others" if more else "may be scored"),
                where="stages.predict.max_per_image",
                fix=f"set it to {3 * best if more else best}, or lower "
                "stages.evaluate.max_per_image",
            )

    def terms(self, rules: Rules, kept: int) -> Terms:
        """What ``None`` stands for.

        Args:
            kept: detections per image that were kept.

        Raises:
            ConfigError: as :meth:`check_kept`.
        """
        from gcdis_ray.evaluation.detection_block import Terms

        self.check_kept(kept)
        return Terms(rules, self.match_iou, self.max_per_image or BEST[rules], kept)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """A match per prediction, and the metrics. Predictions are read, and crops and embeddings to
    score the discovery."""
    rows = inputs["predict"].rows
    names = ("predict", "crop", "crop", "embed")
    return Size(rows, 15 * rows + 20_000, sum(inputs[name].bytes for name in names))


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    """Write what predictions and crops are scored by, and JSON ``metrics``."""
    from gcdis_ray.evaluation.detection_block import rules_of

    predict = inputs["predict"]
    rules = rules_of(inputs["ground_truth"].table("truth_images"))
    terms = config.terms(rules, predict.json("limits")["max_per_image"])
    work.write_json("metrics", score(inputs, predict.table("predictions"), config, terms, work))


def score(
    inputs: Mapping[str, Artifact], predictions: Table, config: Config, terms: Terms, work: Work
) -> dict[str, Any]:
    """The metrics of predictions, however they came about; writes the tables it counts in."""
    from gcdis_ray.evaluation.class_columns import ClassColumns
    from gcdis_ray.evaluation.crop_truth import CropTruth, MatchCrops
    from gcdis_ray.evaluation.detection_block import Detection, score_detections
    from gcdis_ray.evaluation.scoring import ScoringSettings, metrics_document

    sealed = inputs["ground_truth"]
    images, instances = sealed.table("truth_images"), sealed.table("truth_instances")
    matched = work.map_shards(
        MatchCrops(config.match_iou),
        [instances, inputs["label"].table("pseudo_labels"), inputs["propose"].table("proposals")],
        gives=("crop_truth", "class_objects"),
    )
    truth = CropTruth.read(matched["crop_truth"], matched["class_objects"])
    classes = ClassColumns.read(sealed, inputs["ingest"])
    outputs = _outputs(inputs, predictions, classes, truth, config.mapping, terms, work)
    scores = None
    if truth.validation_is_told:
        scores = score_detections(predictions, images, instances, classes, outputs, terms, work)
    settings = ScoringSettings(
        config.match_iou, config.kmeans_n_init, config.kmeans_on_pixels, work.seed
    )
    return metrics_document(inputs, classes, truth, Detection(scores, outputs, terms), settings)


def _outputs(
    inputs: Mapping[str, Artifact],
    predictions: Table,
    classes: ClassColumns,
    truth: CropTruth,
    rule: MappingConfig,
    terms: Terms,
    work: Work,
) -> OutputMap:
    """What the outputs stand for, counted where ``mapping.source`` says."""
    from gcdis_ray.evaluation.cluster_mapping import CountDetections, counts_of_crops, match_outputs
    from gcdis_ray.evaluation.detection_block import OutputMap
    from gcdis_ray.evaluation.scoring import num_outputs

    note = None
    if rule.source == "train_gt" and not truth.num_matched:
        rule = rule.model_copy(update={"source": "split_val"})  # leak-free as well
        told = "no crop of them matches a true object" if truth.num_objects else "no ground truth"
        note = f"unlabeled images cannot be mapped by: {told}"
    instances = inputs["ground_truth"].table("truth_instances")
    if rule.source == "train_gt":
        labels = inputs["label"].table("pseudo_labels").read(["class_index"])
        counts = [counts_of_crops(truth, labels["class_index"].to_numpy())]
    else:
        task, seen = CountDetections(terms.iou, terms.best, rule.source == "split_val"), predictions
        if rule.source == "gt_crops":
            task, seen = _true_crops(inputs), inputs["ingest"].table("images")
        found = work.map_shards(task, [seen, instances], gives=("cluster_counts",))
        counts = found["cluster_counts"].iter_shards()
    names = inputs["discover"].json("discovered_classes")
    column_of = match_outputs(counts, classes, num_outputs(classes, names), rule.scope)
    return OutputMap(column_of, rule, note)


def _true_crops(inputs: Mapping[str, Artifact]) -> CountTrueCrops:
    """True objects, cut out like the crops that the discovery model has learned from."""
    from gcdis_ray.data.images.image_files import ImageFiles
    from gcdis_ray.evaluation.cluster_mapping import CountTrueCrops
    from gcdis_ray.stages import crop

    discover = inputs["discover"]
    config = crop.Config.model_validate(inputs["crop"].manifest.config)
    return CountTrueCrops(
        files=ImageFiles.of(inputs["ingest"]),
        spec=discover.json("encoder_spec"),
        weights=discover.tensor_file("encoder"),
        cut=partial(crop.cut_image, config=config),
    )
