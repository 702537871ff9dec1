"""From detections and objects of some images to rows that average precision is computed from.

Everything is columns: nothing here grows with images x classes, only with detections and objects.
Rows of different images never meet, so any split of a data set by image gives the same rows; and
:func:`gcdis_ray.metrics.average_precision.curves` takes them in any order, so any split of the
classes gives the same curves.

Shape letters: I images, G objects, D detections, A area ranges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa

from gcdis_ray.files.arrow_columns import as_column, as_texts
from gcdis_ray.lookup import is_in
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

Kind = Literal["mask", "box"]
KINDS: tuple[Kind, ...] = ("mask", "box")


@dataclass(frozen=True)
class Rules:
    """What COCO and LVIS differ in."""

    name: Literal["coco", "lvis"]
    max_dets: tuple[int | None, ...]  # per image and class; None: as many as there are
    max_per_image: int | None  # over all classes
    protocol: str

    @property
    def federated(self) -> bool:
        """An image is annotated for some classes only."""
        return self.name == "lvis"


RULES = {
    "coco": Rules(
        "coco",
        (1, 10, 100),
        None,
        "COCO: IoU .50:.05:.95, 101 recall points, 100 detections per image and class",
    ),
    "lvis": Rules(
        "lvis",
        (None,),
        300,
        "LVIS federated: IoU .50:.05:.95, 101 recall points, 300 detections per image; "
        "detections of classes not verified for the image are ignored",
    ),
}


@dataclass(frozen=True)
class Truth:
    """Images, their objects, and what was looked for in them. Classes are columns from 0."""

    rules: Rules
    num_classes: int
    image_ids_I: Ints  # rising
    image_G: Ints  # position of the image; rows by image, class, and their order in the source
    class_G: Ints
    bbox_G4: Floats  # x, y, width, height; NaN: none
    area_px_G: Floats  # NaN: not given
    crowd_G: Bools
    ignore_G: Bools
    masks: Masks
    absent: Ints  # image position x num_classes + class, rising: verified to have none
    not_exhaustive: Ints  # likewise: not every object is annotated

    @cached_property
    def key_G(self) -> Ints:
        return self.key(self.image_G, self.class_G)

    def key(self, image: Ints, class_: Ints) -> Ints:
        return image * self.num_classes + class_

    def looked_for(self, key: Ints) -> Bools:
        """Images and classes where a detection counts, right or wrong."""
        if not self.rules.federated:
            return np.ones(len(key), dtype=np.bool_)
        return self.has_objects(key) | is_in(key, self.absent)

    def has_objects(self, key: Ints) -> Bools:
        return is_in(key, self.key_G)


@dataclass(frozen=True)
class Detections:
    """Detections of the images of a :class:`Truth`, in the order of their source.

    ``class_D`` is -1 for a class that stands for nothing. Boxes as above. Where nothing can be
    matched, a row needs only its areas: ``areas_px`` (by kind, NaN: from the shape).
    """

    image_D: Ints
    class_D: Ints
    score_D: Floats
    bbox_D4: Floats
    masks: Masks
    areas_px: Mapping[Kind, Floats]

    def without_mask(self) -> Bools:
        return self.masks.missing() & np.isnan(self.areas_px["mask"])

    def take(self, rows: Ints) -> Detections:
        return Detections(
            self.image_D[rows],
            self.class_D[rows],
            self.score_D[rows],
            self.bbox_D4[rows],
            self.masks.take(rows),
            {kind: areas[rows] for kind, areas in self.areas_px.items()},
        )


def joined(parts: Sequence[Detections]) -> Detections:
    """Rows of all parts, with masks as Arrow columns."""
    none = [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4))]
    names = ("image_D", "class_D", "score_D", "bbox_D4")
    columns = [
        np.concatenate([empty, *(getattr(part, name) for part in parts)])
        for name, empty in zip(names, none, strict=True)
    ]
    texts = [chunk for part in parts for chunk in part.masks.values.chunks]
    sizes = [np.zeros((0, 2), np.int64), *(part.masks.size_N2 for part in parts)]
    areas: dict[Kind, Floats] = {
        kind: np.concatenate([np.zeros(0), *(part.areas_px[kind] for part in parts)])
        for kind in KINDS
    }
    masks = Masks(pa.chunked_array(texts, pa.large_string()), np.concatenate(sizes))
    return Detections(columns[0], columns[1], columns[2], columns[3], masks, areas)


def best_of_image(image_D: Ints, score_D: Floats, limit: int) -> Ints:
    """Rows of the ``limit`` best detections of each image; of equal ones the first."""
    order = np.lexsort((-score_D, image_D))
    return order[_place(image_D[order]) < limit]


def considered(truth: Truth, found: Detections, max_per_image: int | None) -> Detections:
    """Those that count: among the best of their image, of a class that was looked for there."""
    rows = np.arange(len(found.score_D))
    if max_per_image is not None:
        rows = np.sort(best_of_image(found.image_D, found.score_D, max_per_image))
    rows = rows[found.class_D[rows] >= 0]
    return found.take(rows[truth.looked_for(truth.key(found.image_D[rows], found.class_D[rows]))])


def match_images(
    truth: Truth, found: Detections, kinds: tuple[Kind, ...] = KINDS
) -> tuple[pa.Table, pa.Table]:
    """Match detections that count, of :func:`considered`.

    Args:
        kinds: those for which every object and every detection has a shape.

    Returns:
        tables ``matches`` and ``object_counts`` (schemas in :mod:`gcdis_ray.store.schemas`). A
        kind that is not in ``kinds`` is null.
    """
    found = found.take(np.lexsort((-found.score_D, truth.key(found.image_D, found.class_D))))
    key_D = truth.key(found.image_D, found.class_D)
    rank_D = _place(key_D)
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
    area_D = _areas(found.areas_px[kind], found.bbox_D4, found.masks, kind)
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


def _place(key: Ints) -> Ints:
    """Position of each row among neighbours of its key: 0, 1, 2, 0, ..."""
    first = np.flatnonzero(np.diff(key, prepend=-2))
    return np.arange(len(key)) - np.repeat(first, np.diff(np.append(first, len(key))))


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
