"""The numbers of a run, from its artifacts and the ground truth: the metrics document.

Keys that others script against, always there (null where they cannot be had, and ``reason`` says
why): ``discovery.accuracy``, ``discovery.kmeans_accuracy``, ``detection.mask_ap`` and
``detection.box_ap``, each ``{all, known, novel}`` in [0, 1];
``discovery.accuracy_by_frequency``, ``{head, mid, tail}`` in [0, 1];
``class_count.{estimate, truth}``; ``class_count.discovered`` is the number of classes that discover
told apart, known ones included: the estimate, unless it trained more outputs or pruned some.

Memory: some numbers per crop, class and pair of output and class; never the rows of all shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.class_tables import per_class, per_output
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.evaluation.detection_block import Detection
from gcdis_ray.evaluation.discovery_scores import Baseline, discovery_block
from gcdis_ray.masks.instance_masks import count_origins
from gcdis_ray.metrics import discovery, trust
from gcdis_ray.metrics.frequency import frequency_thirds
from gcdis_ray.store.artifacts import Artifact, Table

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ScoringSettings:
    """See the config of stage evaluate."""

    match_iou: float
    kmeans_n_init: int
    kmeans_on_pixels: bool
    seed: int


def metrics_document(
    inputs: Mapping[str, Artifact],
    classes: ClassColumns,
    truth: CropTruth,
    detection: Detection,
    settings: ScoringSettings,
) -> dict[str, Any]:
    """The whole document, plain JSON.

    Args:
        inputs: of stage evaluate.
    """
    outputs = inputs["discover"].json("discovered_classes")
    labels = inputs["label"].table("pseudo_labels")
    pseudo = column_arrays(labels, ("class_index", "probability", "stability", "reliability"))
    assigned = _by_crop(inputs["discover"].table("assignments"))
    objects = truth.objects_per_category
    columns = classes.columns(np.fromiter(objects, np.int64, len(objects))).tolist()
    third_of = frequency_thirds(dict(zip(columns, objects.values(), strict=True)))
    found, named_U = discovery_block(
        assigned["cluster_id"],
        truth,
        classes,
        third_of,
        _baselines(inputs, len(outputs), settings) if truth.num_matched else {},
        settings.match_iou,
    )
    return {
        "discovery": found,
        "detection": detection.block(classes),
        "class_count": _class_count(inputs, len(outputs), classes, truth),
        "coverage": {
            **_coverage(truth, len(assigned["cluster_id"]), settings.match_iou),
            "labeled_crops_by_mask": _labeled_by_mask(inputs),
        },
        "per_class": per_class(
            classes, truth, named_U, assigned, third_of, detection.ap_of_columns
        ),
        "clusters": per_output(
            outputs,
            num_outputs(classes, outputs),
            classes,
            truth,
            pseudo,
            detection.outputs.column_of,
        ),
        **_trust(pseudo, truth, classes, detection.outputs.column_of),
    }


def num_outputs(classes: ClassColumns, outputs: list[dict[str, Any]]) -> int:
    """One above the highest output."""
    used = [*classes.column_of_output, *(row["class_index"] for row in outputs)]
    return 1 + max(used, default=-1)


def column_arrays(table: Table, columns: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of all rows, in shard order."""
    rows = table.read(columns)
    return {name: rows[name].to_numpy() for name in columns}


def _by_crop(assignments: Table) -> dict[str, NDArray[Any]]:
    names = ("crop_index", "class_index", "cluster_id", "headness", "temperature")
    found = column_arrays(assignments, names)
    order = np.argsort(found.pop("crop_index"))
    return {name: values[order] for name, values in found.items()}


def _baselines(
    inputs: Mapping[str, Artifact], num_clusters: int, settings: ScoringSettings
) -> dict[str, NDArray[np.int64] | None]:
    baseline = Baseline(num_clusters, settings.kmeans_n_init, settings.seed)
    on_pixels = settings.kmeans_on_pixels
    return {
        "kmeans_accuracy": baseline.of_embeddings(inputs["embed"].table("embeddings")),
        "kmeans_pixels_accuracy": (
            baseline.of_pixels(inputs["crop"].table("crops")) if on_pixels else None
        ),
    }


def _class_count(
    inputs: Mapping[str, Artifact], discovered: int, classes: ClassColumns, truth: CropTruth
) -> dict[str, Any]:
    estimate, present = inputs["count"].json("class_count"), truth.categories_present
    real = [c for c in classes.categories if c["known"] or c["category_id"] in present]
    return {
        "estimate": estimate["num_classes"],
        "discovered": discovered,
        "truth": len(real) if present else None,
        "interval": estimate.get("interval"),
        "method": estimate.get("method"),
    }


def _coverage(truth: CropTruth, num_crops: int, match_iou: float) -> dict[str, Any]:
    total, unlabeled = truth.num_objects, len(truth.crop_index_U)
    return {
        "num_objects": total,
        "num_objects_with_proposal": truth.num_with_proposal,
        "num_objects_with_crop": truth.num_matched,
        "proposal_recall": truth.num_with_proposal / total if total else None,
        "crop_recall": truth.num_matched / total if total else None,
        "num_labeled_crops": num_crops - unlabeled,
        "num_unlabeled_crops": unlabeled,
        "num_unlabeled_crops_matched": truth.num_matched,
        "match_iou": match_iou,
    }


def _labeled_by_mask(inputs: Mapping[str, Artifact]) -> dict[str, int]:
    propose = inputs["propose"]
    made = propose.table("instance_masks") if propose.has("instance_masks") else None
    return count_origins(inputs["crop"].table("crops"), made)


def _trust(
    pseudo: Arrays, truth: CropTruth, classes: ClassColumns, mapping: Mapping[int, int]
) -> dict[str, Any]:
    """How right pseudo-labels are against what claims to tell right from wrong."""
    keep = truth.category_U >= 0
    named = discovery.named_classes(pseudo["class_index"][keep].astype(np.int64), mapping)
    return trust.trust_scores(
        {name: pseudo[name][keep] for name in ("probability", "stability", "reliability")},
        named == classes.columns(truth.category_U[keep]),
    )
