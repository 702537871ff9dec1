"""Which true object each crop of an unlabeled image shows, by overlap of masks (or boxes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.artifacts import Table
from gcdis_ray.data.masks import iou_matrix
from gcdis_ray.metrics.matching import box_iou, greedy_pairs

Row = Mapping[str, Any]
OBJECT_COLUMNS = ("image_id", "mask_rle", "bbox_xyxy", "height_px", "width_px")


def true_objects(truth: pa.Table, split: str) -> dict[int, list[dict[str, Any]]]:
    """Objects of one split by image, without crowds: a crowd is no object of its own."""
    mine = truth.filter(
        pc.and_(pc.equal(truth["split"], split), pc.invert(truth["iscrowd"]))  # pyright: ignore[reportAttributeAccessIssue]
    )
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in mine.select([*OBJECT_COLUMNS, "category_id"]).to_pylist():
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image


def overlap(left: Sequence[Row], right: Sequence[Row]) -> NDArray[np.float64]:
    """IoU of objects of one image, (len(left), len(right)): of masks where all have one."""
    if all(row["mask_rle"] is not None for row in (*left, *right)) and left and right:
        size = right[0]["height_px"], right[0]["width_px"]
        return iou_matrix([r["mask_rle"] for r in left], [r["mask_rle"] for r in right], *size)
    return box_iou(
        np.array([r["bbox_xyxy"] for r in left]), np.array([r["bbox_xyxy"] for r in right])
    )


@dataclass(frozen=True)
class CropTruth:
    """What the crops show.

    Args:
        category_N: by crop_index, the category of the matched true object, -1 for none.
        unlabeled_N: by crop_index, whether the crop came without a label.
        num_objects: true objects of the images.
        num_with_proposal: of these, with a proposal of enough overlap.
        num_with_crop: of these, matched one-to-one with a crop.
        objects_per_category: category_id -> true objects.
    """

    category_N: NDArray[np.int64]
    unlabeled_N: NDArray[np.bool_]
    num_objects: int
    num_with_proposal: int
    num_with_crop: int
    objects_per_category: dict[int, int]


def match_crops(
    crops: Table, proposals: Table, truth: Mapping[int, Sequence[Row]], min_iou: float
) -> CropTruth:
    """Match crops to true objects, greedily one-to-one by falling IoU in every image.

    Args:
        crops, proposals: co-sharded tables.
        truth: image_id -> objects, from :func:`true_objects`.
        min_iou: least overlap of a match.
    """
    categories, unlabeled = [], []
    num_with_proposal = 0
    for index in range(crops.num_shards):
        columns = ("image_id", "source_id", "class_index")
        shard = crops.shard(index, columns).to_pylist()
        category = np.full(len(shard), -1, dtype=np.int64)
        row_of_proposal = {
            row["source_id"]: n for n, row in enumerate(shard) if row["class_index"] < 0
        }
        by_image: dict[int, list[dict[str, Any]]] = {}
        for row in proposals.shard(index, ("proposal_id", *OBJECT_COLUMNS)).to_pylist():
            if row["image_id"] in truth:
                by_image.setdefault(row["image_id"], []).append(row)
        for image_id, found in by_image.items():
            objects = truth[image_id]
            iou_PG = overlap(found, objects)
            num_with_proposal += int((iou_PG.max(axis=0) >= min_iou).sum())
            cropped = [p for p, row in enumerate(found) if row["proposal_id"] in row_of_proposal]
            for p, g, _ in greedy_pairs(iou_PG[cropped], min_iou):
                n = row_of_proposal[found[cropped[p]]["proposal_id"]]
                category[n] = objects[g]["category_id"]
        categories.append(category)
        unlabeled.append(np.array([row["class_index"] < 0 for row in shard], dtype=np.bool_))
    category_N = np.concatenate([np.zeros(0, dtype=np.int64), *categories])
    per_category: dict[int, int] = {}
    for objects in truth.values():
        for row in objects:
            per_category[row["category_id"]] = per_category.get(row["category_id"], 0) + 1
    return CropTruth(
        category_N,
        np.concatenate([np.zeros(0, dtype=np.bool_), *unlabeled]),
        sum(per_category.values()),
        num_with_proposal,
        int((category_N >= 0).sum()),
        per_category,
    )


def detection_counts(
    predictions: pa.Table,
    truth: Mapping[int, Sequence[Row]],
    column_of: Mapping[int, int],
    num_classes: int,
    min_iou: float,
) -> NDArray[np.int64]:
    """How often a detection of each segmenter class matched an object of each true class.

    Args:
        column_of: category_id -> column.
        num_classes: of the segmenter.

    Returns:
        (num_classes, len(column_of)).
    """
    counts = np.zeros((num_classes, len(column_of)), dtype=np.int64)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in predictions.select([*OBJECT_COLUMNS, "class_index"]).to_pylist():
        if row["image_id"] in truth:
            by_image.setdefault(row["image_id"], []).append(row)
    for image_id, found in by_image.items():
        objects = truth[image_id]
        for p, g, _ in greedy_pairs(overlap(found, objects), min_iou):
            counts[found[p]["class_index"], column_of[objects[g]["category_id"]]] += 1
    return counts
