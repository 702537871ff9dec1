"""evaluate: how good is it? It opens the sealed ground truth.

Proposals in unlabeled images are matched to true objects, which gives average recall, and so are
crops, which gives clustering accuracy, NMI and ARI, beside the share of objects that have a crop.
The segmenter's predictions on validation images are scored under a map from its outputs to true
classes, found as ``mapping`` says. Crops and outputs are of the classes as people want them, where
they curated any; a crop that they rejected is scored as sorted into none. Without ground truth
every number is null, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import BEST, NO_PREDICTIONS, Rules, Terms, rules_of
from gcdis_ray.evaluation.tables import (
    CLASS_OBJECTS,
    CLUSTER_COUNTS,
    CROP_TRUTH,
    CURVES,
    MATCH_TOTALS,
    MATCHES,
    OBJECT_COUNTS,
    PROPOSAL_RECALL,
    PROPOSAL_TOTALS,
)
from gcdis_ray.methods.hold_out_config import for_tuning_only
from gcdis_ray.runtime.base import Work
from gcdis_ray.stages.objective import Objective, Reading
from gcdis_ray.store.artifacts import Artifact, Size, Table, Workload
from gcdis_ray.store.members import Inputs, document, optional, sealed, table, whole

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "evaluate"
VERSION = 8
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
    optional("partition"),
    optional("curation"),
    optional("placed"),
    optional("headness"),
    optional("pseudo_labels"),
    optional("predictions"),
    optional("limits"),
)
GIVES = (
    document("metrics"),
    table("crop_truth", CROP_TRUTH),
    table("class_objects", CLASS_OBJECTS),
    table("proposal_recall", PROPOSAL_RECALL),
    table("proposal_totals", PROPOSAL_TOTALS),
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
    kmeans_n_init: int = Field(5, ge=1, le=100, description="starts of the k-means baselines")
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
        best = self.max_per_image or BEST[rules]
        if kept is not None:
            self.check_kept(kept)
        return Terms(rules, self.match_iou, best, best if kept is None else kept)


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    hold_out = getattr(givers.get("method"), "hold_out", None)
    if hold_out is not None and hold_out.share > 0:
        raise for_tuning_only()
    kept = getattr(givers.get("limits"), "max_per_image", None)
    if kept is not None:
        config.check_kept(kept)


def summary(artifact: Artifact) -> list[str]:
    from gcdis_ray.evaluation.summary import metrics_lines

    return metrics_lines(artifact.json("metrics"))


def warning(artifact: Artifact) -> str | None:
    from gcdis_ray.evaluation.summary import below_start, more_than_images

    metrics = artifact.json("metrics")
    lines = (below_start(metrics), more_than_images(metrics))
    return "\n".join(filter(None, lines)) or None


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
            "discovery.found_and_sorted": metrics["discovery"]["found_and_sorted"],
            "detection.mask_ap": metrics["detection"]["mask_ap"],
        }
        return Reading((metrics[section].get(name) or {}).get(part), metrics=shown)

    return read


def sections(view: RunView) -> Sequence[Section]:
    """The scores, and the truth beside what earlier stages show without it."""
    from gcdis_ray.report.class_sections import class_sections
    from gcdis_ray.report.detection_section import detection_section
    from gcdis_ray.report.diagnostics import diagnostics_section
    from gcdis_ray.report.discovery_section import discovery_sections
    from gcdis_ray.report.missed_section import missed_section
    from gcdis_ray.report.run_pictures import predicted_pictures

    metrics = view.json("metrics")
    return [
        *class_sections(view, metrics),
        *predicted_pictures(view, metrics),
        *discovery_sections(view, metrics),
        missed_section(view),
        diagnostics_section(view, metrics),
        detection_section(metrics),
    ]


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """A match per prediction, and the metrics. Predictions are read; crops, and embeddings for each
    baseline, to score the discovery."""
    rows = inputs["predictions"].rows if "predictions" in inputs else 0
    times = {"predictions": 1, "embeddings": 4}
    read = [times[name] * inputs[name].bytes for name in times if name in inputs]
    return Size(rows, 15 * rows + 20_000, sum(read) + 2 * inputs["crops"].bytes)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Predictions to score."""
    return Workload(rows=made.rows)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write what predictions and crops are scored by, and JSON ``metrics``."""
    if inputs.beside("method").has("holdout"):
        raise for_tuning_only()
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
    from gcdis_ray.evaluation.cluster_mapping import map_outputs
    from gcdis_ray.evaluation.crop_truth import CropTruth, MatchCrops
    from gcdis_ray.evaluation.detection_block import Detection
    from gcdis_ray.evaluation.detection_matches import score_detections
    from gcdis_ray.evaluation.proposal_recall import score_proposals
    from gcdis_ray.evaluation.scoring import ScoringSettings, metrics_document

    images, instances = inputs.table("truth_images"), inputs.table("truth_instances")
    rejected = inputs.has("curation") and inputs.json("curation")["rejected_crops"]
    every = inputs.has("pseudo_labels") and not rejected  # has a row for each unlabeled crop
    labels = inputs.table("pseudo_labels" if every else "crops")
    matched = work.map_shards(
        MatchCrops(config.match_iou),
        [instances, labels, inputs.table("proposals")],
        gives=("crop_truth", "class_objects"),
    )
    truth = CropTruth.read(matched["crop_truth"], matched["class_objects"])
    classes = ClassColumns.read(inputs)
    outputs = map_outputs(inputs, predictions, classes, truth, config.mapping, terms, work)
    settings = ScoringSettings(
        config.match_iou, config.kmeans_n_init, config.kmeans_on_pixels, work.seed
    )
    if predictions is None:
        detection = Detection(None, outputs, terms, NO_PREDICTIONS)
    elif not truth.validation_is_told:
        detection = Detection(None, outputs, terms)
    else:
        scores = score_detections(predictions, images, instances, classes, outputs, terms, work)
        detection = Detection(scores, outputs, terms)
    proposals = score_proposals(inputs.table("proposals"), images, instances, classes, work)
    return metrics_document(inputs, classes, truth, detection, proposals, settings)
