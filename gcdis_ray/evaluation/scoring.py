"""The numbers of a run, from its artifacts and the ground truth: the metrics document.

Keys that others script against, always there (null where they cannot be had, and ``reason`` says
why): ``discovery.accuracy``, with ``num_crops_scored``, ``objects_with_crop`` and
``found_and_sorted`` beside it, ``discovery.placed_accuracy``, ``discovery.ss_kmeans_accuracy``,
``discovery.kmeans_named_accuracy`` and ``discovery.kmeans_accuracy``, ``proposals.mask_ar10`` and
``proposals.mask_ar100``, ``detection.mask_ap`` and ``detection.box_ap``, each
``{all, known, novel}`` in [0, 1];
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

from gcdis_ray.evaluation.baselines import Baseline, Partition, named_by_labels
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.class_tables import per_class, per_output
from gcdis_ray.evaluation.crop_labels import (
    Arrays,
    assignments_by_crop,
    by_crop,
    labels_of_unlabeled,
)
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.evaluation.detection_block import Detection
from gcdis_ray.evaluation.discovery_scores import discovery_block
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
    proposals: Mapping[str, Any],
    settings: ScoringSettings,
) -> dict[str, Any]:
    """The whole document, plain JSON.

    Args:
        inputs: of stage evaluate.
        proposals: of :func:`gcdis_ray.evaluation.proposal_recall.score_proposals`.
    """
    outputs = inputs.json("discovered_classes")
    assigned = assignments_by_crop(inputs)
    labels, judged = labels_of_unlabeled(inputs, assigned, truth)
    objects = truth.objects_per_category
    columns = classes.columns(np.fromiter(objects, np.int64, len(objects))).tolist()
    third_of = frequency_thirds(dict(zip(columns, objects.values(), strict=True)))
    found, named_U = discovery_block(
        Partition(assigned["cluster_id"], {known: known for known in classes.column_of_output}),
        truth,
        classes,
        third_of,
        _baselines(inputs, assigned, len(outputs), settings) if truth.num_matched else {},
        settings.match_iou,
    )
    return {
        "discovery": found,
        "proposals": dict(proposals),
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
            judged,
            labels,
            detection.outputs.column_of,
        ),
        **_trust(labels, judged, classes, detection.outputs.column_of),
    }


def _baselines(
    inputs: Members, assigned: Arrays, num_clusters: int, settings: ScoringSettings
) -> dict[str, Partition | None]:
    """The same crops sorted otherwise, as far as the run has what that takes."""
    baseline = Baseline(num_clusters, settings.kmeans_n_init, settings.seed)
    num_known = len(inputs.json("classes"))
    found: dict[str, Partition | None] = {}
    if inputs.has("placed"):
        placed = by_crop(inputs.table("placed"), ("cluster_id",))["cluster_id"]
        found["placed_accuracy"] = Partition(placed, {k: k for k in range(num_known)})
    if inputs.has("embeddings"):
        embeddings = inputs.table("embeddings")
        plain = baseline.of_embeddings(embeddings)
        found["kmeans_accuracy"] = plain
        if (assigned["class_index"] >= 0).any():  # none is labeled where a run was continued
            found |= {
                "ss_kmeans_accuracy": baseline.of_labels(embeddings, num_known),
                "kmeans_named_accuracy": named_by_labels(plain, assigned["class_index"]),
            }
    if settings.kmeans_on_pixels:
        found["kmeans_pixels_accuracy"] = baseline.of_pixels(inputs.table("crops"))
    return found


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
