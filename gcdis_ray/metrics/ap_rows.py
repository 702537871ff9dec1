"""From detections and objects of some images to rows that average precision is computed from.

Everything is columns: nothing here grows with images x classes, only with detections and objects.
Rows of different images never meet, so any split of a data set by image gives the same rows; and
:func:`gcdis_ray.metrics.average_precision.class_curves` takes them in any order, so any split of
the classes gives the same curves.

Shape letters: I images, G objects, D detections, A area ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gcdis_ray.files.arrow_columns import as_column, as_texts
from gcdis_ray.lookup import is_in, rank_in_group
from gcdis_ray.metrics.detection_columns import KINDS, Detections, Kind, Truth
from gcdis_ray.metrics.detection_matching import (
    AREAS,
    Bools,
    Edges,
    Floats,
    Ints,
    match,
    outside_areas,
)
from gcdis_ray.metrics.overlaps import (
    Masks,
    Pairs,
    box_edges,
    mask_areas,
    mask_edges,
    ranges,
    tight_boxes,
)


@dataclass(frozen=True)
class Totals:
    """What was scored; sums over shards."""

    images: int = 0
    objects: int = 0
    detections: int = 0  # that count
    unmapped_predictions: int = 0
    objects_without_mask: int = 0
    detections_without_mask: int = 0
    derived_boxes: int = 0

    @staticmethod
    def of(truth: Truth, found: Detections, unmapped: int = 0) -> Totals:
        return Totals(
            len(truth.image_ids_I),
            len(truth.class_G),
            len(found.class_D),
            unmapped,
            int(truth.masks.missing().sum()),
            int(found.without_mask().sum()),
            int(np.isnan(found.bbox_D4[:, 0]).sum()),
        )

    def reason(self, kind: Kind) -> str | None:
        """Why a kind cannot be scored."""
        if kind == "mask":
            for without, total, name in (
                (self.objects_without_mask, self.objects, "ground-truth objects"),
                (self.detections_without_mask, self.detections, "detections"),
            ):
                if without:
                    return f"not scored: {without} of {total} {name} have no mask"
        return None

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if self.reason(kind) is None)

    def note(self, kind: Kind, areas: Kind | None = None) -> str:
        """Args: areas: of the rules."""
        if areas and areas != kind:
            return f"detections have the area of their {areas}"
        if kind == "mask":
            return "area of the mask"
        if self.derived_boxes:
            return f"{self.derived_boxes} boxes derived from masks, with the mask's area"
        return "area of the box"


def match_images(
    truth: Truth, found: Detections, kinds: tuple[Kind, ...] = KINDS
) -> tuple[pa.Table, pa.Table]:
    """Match detections that count, of :func:`gcdis_ray.metrics.detection_columns.considered`.

    Args:
        kinds: those for which every object and every detection has a shape.

    Returns:
        tables ``matches`` and ``object_counts`` (schemas in :mod:`gcdis_ray.evaluation.tables`). A
        kind that is not in ``kinds`` is null.
    """
    found = found.take(np.lexsort((-found.score_D, truth.key(found.image_D, found.class_D))))
    key_D = truth.key(found.image_D, found.class_D)
    rank_D = rank_in_group(key_D)
    last = truth.rules.max_dets[-1]
    if last is not None:
        keep = np.flatnonzero(rank_D < last)
        found, key_D, rank_D = found.take(keep), key_D[keep], rank_D[keep]
    pairs = common_pairs(key_D, truth.key_G)
    crowd_G = truth.crowd_G & (not truth.rules.federated)
    ignore_G = truth.ignore_G if truth.rules.federated else truth.crowd_G
    excused_D = is_in(key_D, truth.not_exhaustive)  # an unmatched one may be right
    columns: dict[str, pa.Array] = {
        "class_column": as_column(found.class_D.astype(np.int32)),
        "image_id": as_column(truth.image_ids_I[found.image_D]),
        "rank": as_column(rank_D.astype(np.int32)),
        "score": as_column(found.score_D),
    }
    counts = []
    for kind in KINDS:
        if kind not in kinds:
            nothing = pa.nulls(len(key_D), pa.int64())
            columns |= {f"{kind}_matched": nothing, f"{kind}_ignored": nothing}
            continue
        edges, area_G, area_D = _shapes(truth, found, kind, pairs, crowd_G)
        ignored_AG = ignore_G | outside_areas(area_G)
        outside_AD = outside_areas(area_D) | excused_D
        matched_D, ignored_D = match(edges, key_D, ignored_AG, crowd_G, outside_AD)
        columns |= {
            f"{kind}_matched": as_column(matched_D),
            f"{kind}_ignored": as_column(ignored_D),
        }
        counts.append(_object_counts(truth.class_G, ~ignored_AG, kind))
    return pa.table(columns), pa.concat_tables(counts) if counts else _object_counts(
        truth.class_G[:0], np.zeros((len(AREAS), 0), np.bool_), "box"
    )


def _shapes(
    truth: Truth, found: Detections, kind: Kind, pairs: Pairs, crowd_G: Bools
) -> tuple[Edges, Floats, Floats]:
    """Overlaps of one kind, areas of objects and areas of detections in pixels."""
    if kind == "mask":
        edges = mask_edges(found.masks, truth.masks, crowd_G, pairs)
    else:
        boxes = given_boxes(found.bbox_D4, found.masks, ranges(pairs.first_d, pairs.num_d))
        objects = given_boxes(truth.bbox_G4, truth.masks, np.arange(len(truth.class_G)))
        edges = box_edges(boxes, objects, crowd_G, pairs)
    area_G = _areas(truth.area_px_G, truth.bbox_G4, truth.masks, kind)
    area_D = _areas(found.areas_px[truth.rules.areas or kind], found.bbox_D4, found.masks, kind)
    return edges, area_G, area_D


def given_boxes(bbox_N4: Floats, masks: Masks, rows: Ints) -> Floats:
    """Boxes as they are given, at ``rows`` those of the masks where none is."""
    rows = rows[np.isnan(bbox_N4[rows, 0])]
    if len(rows):
        bbox_N4 = bbox_N4.copy()
        bbox_N4[rows] = tight_boxes(masks, rows)
    return bbox_N4


def _areas(given_N: Floats, bbox_N4: Floats, masks: Masks, kind: Kind) -> Floats:
    """Areas as they are given, else the box's for a box that is given, else the mask's."""
    areas = given_N
    if kind == "box":
        areas = np.where(np.isnan(given_N), bbox_N4[:, 2] * bbox_N4[:, 3], given_N)
    rows = np.flatnonzero(np.isnan(areas))
    if len(rows):
        areas = areas.copy()
        areas[rows] = mask_areas(masks, rows)
    return areas


def _object_counts(class_G: Ints, counts_AG: Bools, kind: Kind) -> pa.Table:
    classes, of = np.unique(class_G, return_inverse=True)
    num_CA = np.stack([np.bincount(of[row], minlength=len(classes)) for row in counts_AG], axis=1)
    return pa.table(
        {
            "class_column": as_column(classes.astype(np.int32)),
            "kind": as_texts([kind] * len(classes)),
            "num_objects": pa.FixedSizeListArray.from_arrays(
                as_column(num_CA.astype(np.int64).ravel()), len(AREAS)
            ),
        }
    )


def common_pairs(key_D: Ints, key_G: Ints) -> Pairs:
    """Rows of every key that occurs on both sides; both rising."""
    both = np.intersect1d(key_D, key_G)
    first_d, first_g = np.searchsorted(key_D, both), np.searchsorted(key_G, both)
    return Pairs(
        first_d,
        np.searchsorted(key_D, both, side="right") - first_d,
        first_g,
        np.searchsorted(key_G, both, side="right") - first_g,
    )
