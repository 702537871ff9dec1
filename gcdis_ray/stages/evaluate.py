"""evaluate: how good is it? It opens the sealed ground truth.

Crops of unlabeled images are matched to true objects, which gives clustering accuracy, NMI and ARI.
The segmenter's predictions on validation images are scored under a map from its outputs to true
classes, found as ``mapping`` says. Without ground truth every number is null, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import BEST
from gcdis_ray.evaluation.tables import (
    CLASS_OBJECTS,
    CLUSTER_COUNTS,
    CROP_TRUTH,
    CURVES,
    MATCH_TOTALS,
    MATCHES,
    OBJECT_COUNTS,
)
from gcdis_ray.runtime.base import Work
from gcdis_ray.stages.objective import Objective, Reading
from gcdis_ray.store.artifacts import Artifact, Size, Table
from gcdis_ray.store.members import Inputs, document, optional, sealed, table, whole

if TYPE_CHECKING:
    from gcdis_ray.evaluation.class_columns import ClassColumns
    from gcdis_ray.evaluation.cluster_mapping import CountTrueCrops
    from gcdis_ray.evaluation.crop_truth import CropTruth
    from gcdis_ray.evaluation.detection_block import OutputMap, Terms
    from gcdis_ray.evaluation.scored_images import Rules

ID = "evaluate"
VERSION = 7
TAKES = (
    sealed("truth_images"),
    sealed("truth_instances"),
    sealed("categories"),
    "classes",
    "images",
    optional("source"),
    "proposals",
    optional("instance_masks"),
    "crops",
    "crop_spec",
    optional("embeddings"),
    optional("class_count"),
    whole("method"),
    "discovered_classes",
    "assignments",
    optional("headness"),
    optional("pseudo_labels"),
    optional("predictions"),
    optional("limits"),
)
GIVES = (
    document("metrics"),
    table("crop_truth", CROP_TRUTH),
    table("class_objects", CLASS_OBJECTS),
    table("cluster_counts", CLUSTER_COUNTS, optional=True),
    table("matches", MATCHES, optional=True),
    table("object_counts", OBJECT_COUNTS, optional=True),
    table("match_totals", MATCH_TOTALS, optional=True),
    table("curves", CURVES, optional=True),
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

    def terms(self, rules: Rules, kept: int | None) -> Terms:
        """What ``None`` stands for.

        Args:
            kept: detections per image that were kept; None: all.

        Raises:
            ConfigError: as :meth:`check_kept`.
        """
        from gcdis_ray.evaluation.detection_block import Terms

        best = self.max_per_image or BEST[rules]
        if kept is not None:
            self.check_kept(kept)
        return Terms(rules, self.match_iou, best, best if kept is None else kept)


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    kept = getattr(givers.get("limits"), "max_per_image", None)
    if kept is not None:
        config.check_kept(kept)


def summary(artifact: Artifact) -> list[str]:
    from gcdis_ray.evaluation.summary import metrics_lines

    return metrics_lines(artifact.json("metrics"))


def objectives() -> Sequence[Objective]:
    kinds = (("accuracy", "discovery", "accuracy"), ("mask_ap", "detection", "mask_ap"))
    return [
        Objective(
            f"{title}_{part}",
            "max",
            f"{section}.{name}.{part} of evaluate",
            read=_scored(section, name, part),
        )
        for title, section, name in kinds
        for part in ("all", "known", "novel")
    ]


def _scored(section: str, name: str, part: str) -> Callable[[Artifact], Reading]:
    def read(artifact: Artifact) -> Reading:
        metrics = artifact.json("metrics")
        shown = {
            "discovery.accuracy": metrics["discovery"]["accuracy"],
            "detection.mask_ap": metrics["detection"]["mask_ap"],
        }
        return Reading((metrics[section].get(name) or {}).get(part), metrics=shown)

    return read


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """A match per prediction, and the metrics. Predictions are read, and crops and embeddings to
    score the discovery."""
    rows = inputs["predictions"].rows if "predictions" in inputs else 0
    read = [inputs[name].bytes for name in ("predictions", "embeddings") if name in inputs]
    return Size(rows, 15 * rows + 20_000, sum(read) + 2 * inputs["crops"].bytes)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write what predictions and crops are scored by, and JSON ``metrics``."""
    from gcdis_ray.evaluation.detection_block import rules_of

    rules = rules_of(inputs.table("truth_images"))
    predictions = inputs.table("predictions") if inputs.has("predictions") else None
    if inputs.has("limits"):
        terms = config.terms(rules, inputs.json("limits")["max_per_image"])
    else:
        terms = config.terms(rules, None)
    work.write_json("metrics", score(inputs, predictions, config, terms, work))


def score(
    inputs: Inputs, predictions: Table | None, config: Config, terms: Terms, work: Work
) -> dict[str, Any]:
    """The metrics of predictions, however they came about; writes the tables it counts in."""
    from gcdis_ray.evaluation.class_columns import ClassColumns
    from gcdis_ray.evaluation.crop_truth import CropTruth, MatchCrops
    from gcdis_ray.evaluation.detection_block import Detection, score_detections
    from gcdis_ray.evaluation.scoring import ScoringSettings, metrics_document

    images, instances = inputs.table("truth_images"), inputs.table("truth_instances")
    labels = inputs.table("pseudo_labels" if inputs.has("pseudo_labels") else "crops")
    matched = work.map_shards(
        MatchCrops(config.match_iou),
        [instances, labels, inputs.table("proposals")],
        gives=("crop_truth", "class_objects"),
    )
    truth = CropTruth.read(matched["crop_truth"], matched["class_objects"])
    classes = ClassColumns.read(inputs)
    outputs = _outputs(inputs, predictions, classes, truth, config.mapping, terms, work)
    settings = ScoringSettings(
        config.match_iou, config.kmeans_n_init, config.kmeans_on_pixels, work.seed
    )
    if predictions is None:
        detection = Detection(None, outputs, terms, "the recipe predicts nothing")
    elif not truth.validation_is_told:
        detection = Detection(None, outputs, terms)
    else:
        scores = score_detections(predictions, images, instances, classes, outputs, terms, work)
        detection = Detection(scores, outputs, terms)
    return metrics_document(inputs, classes, truth, detection, settings)


def _outputs(
    inputs: Inputs,
    predictions: Table | None,
    classes: ClassColumns,
    truth: CropTruth,
    rule: MappingConfig,
    terms: Terms,
    work: Work,
) -> OutputMap:
    """What the outputs stand for, counted where ``mapping.source`` says."""
    from gcdis_ray.evaluation.cluster_mapping import (
        CountDetections,
        counts_of_crops,
        match_outputs,
    )
    from gcdis_ray.evaluation.detection_block import OutputMap
    from gcdis_ray.evaluation.scoring import assignments_by_crop, num_outputs

    note = None
    if rule.source == "train_gt" and not truth.num_matched and predictions is not None:
        rule = rule.model_copy(update={"source": "split_val"})  # leak-free as well
        told = "no crop of them matches a true object" if truth.num_objects else "no ground truth"
        note = f"unlabeled images cannot be mapped by: {told}"
    if predictions is None and rule.source in ("split_val", "detections"):
        rule = rule.model_copy(update={"source": "train_gt"})
        note = "there are no predictions to map by"
    instances = inputs.table("truth_instances")
    if rule.source == "train_gt":
        cluster_N = assignments_by_crop(inputs)["cluster_id"]
        counts = [counts_of_crops(truth, cluster_N[truth.crop_index_U])]
    else:
        task, seen = CountDetections(terms.iou, terms.best, rule.source == "split_val"), predictions
        if rule.source == "gt_crops" or seen is None:
            task, seen = _true_crops(inputs), inputs.table("images")
        found = work.map_shards(task, [seen, instances], gives=("cluster_counts",))
        counts = found["cluster_counts"].iter_shards()
    names = inputs.json("discovered_classes")
    column_of = match_outputs(counts, classes, num_outputs(classes, names), rule.scope)
    return OutputMap(column_of, rule, note)


def _true_crops(inputs: Inputs) -> CountTrueCrops:
    """True objects, cut out like the crops that the method has learned from."""
    from gcdis_ray.data.crops.cut_spec import CutSpec
    from gcdis_ray.data.images.image_files import ImageFiles
    from gcdis_ray.evaluation.cluster_mapping import CountTrueCrops
    from gcdis_ray.methods.method import StoredMethod

    return CountTrueCrops(
        files=ImageFiles.of(inputs),
        stored=StoredMethod.read(inputs.beside("method")),
        cut=CutSpec(**inputs.json("crop_spec")),
    )
