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
from gcdis_ray.evaluation.crop_labels import Arrays, assignments_by_crop, labels_of_unlabeled
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.evaluation.detection_block import Detection
from gcdis_ray.evaluation.discovery_scores import Baseline, discovery_block
from gcdis_ray.masks.instance_masks import count_origins
from gcdis_ray.metrics import discovery, trust
from gcdis_ray.metrics.frequency import frequency_thirds
from gcdis_ray.store.members import Members


@dataclass(frozen=True)
class ScoringSettings:
    """See the config of stage evaluate."""

    match_iou: float
    kmeans_n_init: int
    kmeans_on_pixels: bool
    seed: int


def metrics_document(
    inputs: Members,
    classes: ClassColumns,
    truth: CropTruth,
    detection: Detection,
    settings: ScoringSettings,
) -> dict[str, Any]:
    """The whole document, plain JSON.

    Args:
        inputs: of stage evaluate.
    """
    outputs = inputs.json("discovered_classes")
    assigned = assignments_by_crop(inputs)
    labels = labels_of_unlabeled(inputs, assigned, truth)
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
            classes.num_outputs(outputs),
            classes,
            truth,
            labels,
            detection.outputs.column_of,
        ),
        **_trust(labels, truth, classes, detection.outputs.column_of),
    }


def _baselines(
    inputs: Members, num_clusters: int, settings: ScoringSettings
) -> dict[str, NDArray[np.int64] | None]:
    baseline = Baseline(num_clusters, settings.kmeans_n_init, settings.seed)
    on_pixels = settings.kmeans_on_pixels
    embedded = inputs.has("embeddings")
    return {
        "kmeans_accuracy": (
            baseline.of_embeddings(inputs.table("embeddings")) if embedded else None
        ),
        "kmeans_pixels_accuracy": baseline.of_pixels(inputs.table("crops")) if on_pixels else None,
    }


def _class_count(
    inputs: Members, discovered: int, classes: ClassColumns, truth: CropTruth
) -> dict[str, Any]:
    estimate = inputs.json("class_count") if inputs.has("class_count") else {}
    present = truth.categories_present
    real = [c for c in classes.categories if c["known"] or c["category_id"] in present]
    return {
        "estimate": estimate.get("num_classes"),
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


def _labeled_by_mask(inputs: Members) -> dict[str, int]:
    made = inputs.table("instance_masks") if inputs.has("instance_masks") else None
    return count_origins(inputs.table("crops"), made)


def _trust(
    labels: Arrays, truth: CropTruth, classes: ClassColumns, mapping: Mapping[int, int]
) -> dict[str, Any]:
    """How right pseudo-labels are against what claims to tell right from wrong."""
    keep = truth.category_U >= 0
    named = discovery.named_classes(labels["cluster_id"][keep].astype(np.int64), mapping)
    return trust.trust_scores(
        {name: values[keep] for name, values in labels.items() if name != "cluster_id"},
        named == classes.columns(truth.category_U[keep]),
    )
