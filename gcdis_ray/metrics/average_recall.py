"""Average recall of class-agnostic proposals, as COCO defines it: for all, known and novel objects.

Recall at k is the share of objects that the best k proposals of their image meet; AR is its mean
over IoU .50:.05:.95. The numbers are those of pycocotools with ``useCats = 0``, to the last bit.

A group of classes is to the matching what a range of areas is: other objects are no mistakes, and
a proposal that meets an object of the group is worth that object, whatever else it meets. So each
object stands twice, among all and in its own group, each proposal in every group, and groups go
through the matching of average precision in the place of classes.

Shape letters: K groups, M numbers of proposals, A area ranges, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.files.arrow_columns import matrix, numbers
from gcdis_ray.lookup import is_in
from gcdis_ray.metrics.ap_rows import match_images
from gcdis_ray.metrics.detection_columns import (
    Detections,
    Kind,
    Rules,
    Truth,
    detection_columns,
    truth_columns,
)
from gcdis_ray.metrics.detection_matching import AREAS, IOU_T, NUM_BITS, Ints

GROUPS = ("all", "known", "novel")
BEST = (10, 100)  # proposals of an image that count
SHAPE = (len(BEST), len(AREAS), len(IOU_T))
PROTOCOL = (
    "COCO, class-agnostic: mean over IoU .50:.05:.95 of the share of true objects of unlabeled "
    "images that the best 10 (ar10) or 100 (ar100) proposals of their image meet, one to one"
)
_RULES = Rules("coco", BEST, None, PROTOCOL)
_COLUMNS = range(len(GROUPS))


def in_groups(
    images: pa.Table, objects: pa.Table, proposals: pa.Table, known_ids: Sequence[int]
) -> tuple[Truth, Detections]:
    """Objects and proposals of these images, with columns of :data:`GROUPS` for classes.

    Args:
        images, objects: rows of ``truth_images`` and of ``truth_instances``.
        proposals: rows of ``proposals``; those of other images are left out.
        known_ids: category ids of known classes.
    """
    category_G = objects["category_id"].to_numpy()
    order = np.argsort(category_G, kind="stable")  # as pycocotools has them in an image
    objects = objects.take(pa.array(order))
    is_known = is_in(category_G[order], np.sort(np.asarray(known_ids, dtype=np.int64)))
    own_G = np.where(is_known, GROUPS.index("known"), GROUPS.index("novel"))
    place = objects.column_names.index("category_id")
    twice = pa.concat_tables(
        objects.set_column(place, "category_id", pa.array(group_G.astype(np.int64)))
        for group_G in (np.zeros_like(own_G), own_G)
    )
    scored = proposals.append_column("score", proposals["objectness"])
    each = pa.concat_tables(
        scored.append_column("class_index", pa.array(np.full(len(scored), k, np.int32)))
        for k in _COLUMNS
    )
    truth = truth_columns(images, twice, list(_COLUMNS), _RULES)
    same = {k: k for k in _COLUMNS}
    return truth, detection_columns(truth, each, list(_COLUMNS), same, None, "after_topk")[0]


def count_met(truth: Truth, found: Detections, kind: Kind) -> tuple[Ints, Ints]:
    """Objects that proposals meet, and objects there are: sums over images.

    Args:
        truth, found: of :func:`in_groups`.
        kind: of which every object has a shape.

    Returns:
        (K, M, A, T) and (K, A).
    """
    matches, counts = match_images(truth, found, (kind,))
    right = numbers(matches[f"{kind}_matched"]) & ~numbers(matches[f"{kind}_ignored"])
    rows = np.flatnonzero(right)
    group, rank = (numbers(matches[name])[rows] for name in ("class_column", "rank"))
    bits = (right[rows, None] >> np.arange(NUM_BITS) & 1).reshape(-1, len(AREAS), len(IOU_T))
    met_KMAT = np.zeros((len(GROUPS), *SHAPE), dtype=np.int64)
    for m, best in enumerate(BEST):
        np.add.at(met_KMAT[:, m], group[rank < best], bits[rank < best])
    objects_KA = np.zeros((len(GROUPS), len(AREAS)), dtype=np.int64)
    mine = counts.filter(pc.equal(counts["kind"], kind))  # pyright: ignore[reportAttributeAccessIssue]
    objects_KA[numbers(mine["class_column"])] = matrix(mine["num_objects"])
    return met_KMAT, objects_KA


def average_recall(met_MAT: Ints, objects_A: Ints) -> list[list[float | None]]:
    """AR of a group, by number of proposals and area range; None where there is no object."""
    return [
        [
            float(np.mean(met_MAT[m, a] / objects_A[a])) if objects_A[a] else None
            for a in range(len(AREAS))
        ]
        for m in range(len(BEST))
    ]
