"""How well discovery sorted the unlabeled crops, beside clustering alone, and how many objects that
is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.evaluation.baselines import Partition
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.metrics import discovery
from gcdis_ray.metrics.frequency import NO_THIRDS, Third, accuracy_by_third

Ints = NDArray[np.int64]
NO_TRUTH = "no ground truth for {} images"
_IDENTITY = f"known_identity: {discovery.PROTOCOLS['known_identity']}"
_FREE = f"hungarian_all: {discovery.PROTOCOLS['hungarian_all']}"
ACCURACIES = {  # in the order of reading: what is scored, and how clusters get their classes
    "accuracy": f"{_IDENTITY}; classes at the end of discovery",
    "placed_accuracy": f"{_IDENTITY}; clusters that discovery started from, before it trained",
    "ss_kmeans_accuracy": f"{_IDENTITY}; semi-supervised k-means on the embeddings",
    "kmeans_named_accuracy": "clusters are named by the labeled crops in them, one Hungarian "
    "assignment over clusters x known classes; Hungarian over the other clusters x novel classes; "
    "k-means on the embeddings",
    "kmeans_accuracy": f"{_FREE}; k-means on the embeddings",
    "kmeans_pixels_accuracy": f"{_FREE}; k-means on the pixels",
}
_REJECTED = (
    "crops of clusters that people rejected, whether they show an object or not; those that do are "
    "scored, as not sorted: no accuracy counts them as right, and NMI and ARI as one cluster"
)
_ALSO_FREE = ("accuracy", "placed_accuracy", "ss_kmeans_accuracy")  # scored both ways


@dataclass(frozen=True)
class _Shown:
    """Unlabeled crops that show a true object, M of them.

    Args:
        crop_index_M: which they are.
        column_M: column of the class of the object.
    """

    crop_index_M: Ints
    column_M: Ints
    classes: ClassColumns
    third_of: Mapping[int, Third]

    def scores(self, name: str, found: Partition) -> tuple[dict[str, Any], Mapping[int, int]]:
        """All accuracies of a partition by their keys in the metrics, and the map from clusters to
        columns that the first of them used."""
        cluster_M = found.cluster_N[self.crop_index_M]
        size, known = len(self.classes), self.classes.known
        parts, mapping = discovery.clustering_accuracy(
            cluster_M, self.column_M, size, known, columns_of(found, self.classes)
        )
        right_M = discovery.named_classes(cluster_M, mapping) == self.column_M
        thirds = accuracy_by_third(right_M, self.column_M, self.third_of)
        rows = {name: parts, f"{name}_by_frequency": thirds}
        if name in _ALSO_FREE:
            rows[f"{name}_hungarian"], _ = discovery.clustering_accuracy(
                cluster_M, self.column_M, size, known
            )
        return rows, mapping


def columns_of(found: Partition, classes: ClassColumns) -> dict[int, int] | None:
    """Cluster -> column of the known class that it stands for."""
    if found.known is None:
        return None
    of_class = classes.column_of_output
    return {k: of_class[known] for k, known in found.known.items() if known in of_class}


def discovery_block(
    found: Partition,
    truth: CropTruth,
    classes: ClassColumns,
    third_of: Mapping[int, Third],
    baselines: Mapping[str, Partition | None],
    match_iou: float,
) -> tuple[dict[str, Any], Ints]:
    """The metrics' ``discovery``, and the column each unlabeled crop was named as (-1 for none).

    Args:
        found: what discovery says.
        third_of: column -> head, mid or tail.
        baselines: other names of :data:`ACCURACIES` -> the same crops sorted otherwise; None or
            absent where there is no such thing.
    """
    cluster_U = found.cluster_N[truth.crop_index_U]
    block: dict[str, Any] = _nothing(match_iou) | {
        "num_clusters_used": len(np.unique(cluster_U[cluster_U >= 0])),
        "num_crops_scored": truth.num_matched,
    }
    if rejected := int((cluster_U < 0).sum()):
        block["num_crops_rejected"] = rejected
        block["protocol"] |= {"num_crops_rejected": _REJECTED}
    named_U = np.full(len(cluster_U), -1, dtype=np.int64)
    if not truth.num_objects:
        return block | {"reason": NO_TRUTH.format("unlabeled")}, named_U
    column_U = classes.columns(truth.category_U)
    matched = np.flatnonzero(truth.category_U >= 0)
    if len(matched):
        shown = _Shown(truth.crop_index_U[matched], column_U[matched], classes, third_of)
        scores, mapping = shown.scores("accuracy", found)
        block |= scores | discovery.agreement(cluster_U[matched], shown.column_M)
        for name, partition in baselines.items():
            if partition is not None:
                block |= shown.scores(name, partition)[0]
        named_U = discovery.named_classes(cluster_U, mapping)
    else:
        block["reason"] = "no crop matches a true object"
    right_U = np.where(named_U == column_U, truth.category_U, -1)
    block["objects_with_crop"] = _share_of_objects(truth.category_U, truth, classes)
    block["found_and_sorted"] = _share_of_objects(right_U, truth, classes)
    return block, named_U


def _nothing(match_iou: float) -> dict[str, Any]:
    """The block where nothing can be scored."""
    block: dict[str, Any] = {}
    scored = (
        "of crops of unlabeled images that are matched one-to-one to a true object at IoU >= "
        f"{match_iou:g}; all other crops, and objects without a crop, are left out"
    )
    protocol = {}
    for name, told in ACCURACIES.items():
        block |= {name: discovery.NOTHING, f"{name}_by_frequency": NO_THIRDS}
        protocol[name] = f"{told}; {scored}"
        if name in _ALSO_FREE:
            block[f"{name}_hungarian"] = discovery.NOTHING
            protocol[f"{name}_hungarian"] = f"{_FREE}; {scored}"
    return block | {
        "objects_with_crop": discovery.NOTHING,
        "found_and_sorted": discovery.NOTHING,
        "nmi": None,
        "ari": None,
        "protocol": protocol
        | {
            "by_frequency": "classes by number of true unlabeled objects, in thirds: share of "
            f"right crops, named as for the accuracy itself; {scored}",
            "objects_with_crop": "share of all true objects of unlabeled images that a crop is "
            f"matched to, one-to-one at IoU >= {match_iou:g}",
            "found_and_sorted": "share of all true objects of unlabeled images that have such a "
            "crop and whose crop was given their class: accuracy x objects_with_crop",
        },
        "reason": None,
    }


def _share_of_objects(
    category_U: Ints, truth: CropTruth, classes: ClassColumns
) -> dict[str, float | None]:
    """Objects that these crops stand for, as a share of all objects of unlabeled images.

    Args:
        category_U: category of the object that each crop stands for, -1 for none.
    """
    objects = truth.objects_per_category
    known = {classes.categories[column]["category_id"] for column in classes.known}
    parts = {
        "all": objects.keys(),
        "known": objects.keys() & known,
        "novel": objects.keys() - known,
    }
    shares: dict[str, float | None] = {}
    for part, ids in parts.items():
        total = sum(objects[category_id] for category_id in ids)
        counted = np.isin(category_U, list(ids))
        shares[part] = float(counted.sum() / total) if total else None
    return shares
