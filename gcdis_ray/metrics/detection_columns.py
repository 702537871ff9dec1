"""Objects and detections of some images as columns: from the pipeline's tables, cut to what counts.

Everything after this works on columns, and so do bare files (:mod:`gcdis_ray.metrics.files`).

Shape letters: I images, G objects, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.lookup import is_in, places, rank_in_group
from gcdis_ray.metrics.detection_matching import Bools, Floats, Ints
from gcdis_ray.metrics.overlaps import Masks

Drop = Literal["before_topk", "after_topk"]
Kind = Literal["mask", "box"]
KINDS: tuple[Kind, ...] = ("mask", "box")


@dataclass(frozen=True)
class Rules:
    """What COCO and LVIS differ in."""

    name: Literal["coco", "lvis"]
    max_dets: tuple[int | None, ...]  # per image and class; None: as many as there are
    max_per_image: int | None  # over all classes
    protocol: str
    areas: Kind | None = None  # whose areas detections are sorted by; None: of the kind scored

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


def truth_columns(
    images: pa.Table, objects: pa.Table, category_ids: Sequence[int], rules: Rules
) -> Truth:
    """Truth of the images in ``images``.

    Args:
        images: rows with ``image_id``; for LVIS rules also ``absent_category_ids`` and
            ``not_exhaustive_category_ids``.
        objects: rows of ``truth_instances``; those of other images are left out.
        category_ids: rising; position is the column of a class.

    Raises:
        DataError: an object of another category.
    """
    images = images.sort_by("image_id")
    ids = images["image_id"].to_numpy()
    objects = objects.filter(pa.array(np.isin(objects["image_id"].to_numpy(), ids)))
    image = np.searchsorted(ids, objects["image_id"].to_numpy())
    class_ = places(objects["category_id"].to_numpy(), category_ids)
    if (class_ < 0).any():
        row = int(np.argmin(class_))
        raise DataError(
            f"category {objects['category_id'][row]} is not listed",
            where=f"instance {objects['instance_id'][row]} of the ground truth",
        )
    order = np.lexsort((class_, image))
    objects = objects.take(pa.array(order))
    none = np.zeros(0, dtype=np.int64)
    return Truth(
        rules,
        len(category_ids),
        ids,
        image[order],
        class_[order],
        _boxes(objects),
        objects["area_px"].to_numpy(),
        objects["iscrowd"].to_numpy(),
        np.zeros(len(order), dtype=np.bool_),
        _masks(objects),
        _keys(images["absent_category_ids"], category_ids) if rules.federated else none,
        _keys(images["not_exhaustive_category_ids"], category_ids) if rules.federated else none,
    )


def detection_columns(
    truth: Truth,
    predictions: pa.Table,
    category_ids: Sequence[int],
    class_to_category: Mapping[int, int],
    max_per_image: int | None,
    drop: Drop,
) -> tuple[Detections, int]:
    """Detections that count among rows of ``predictions``.

    Args:
        class_to_category: the category that each class of the segmenter stands for.
        max_per_image: the best so many of an image are taken; None: as the rules say.
        drop: whether detections of other classes leave before they are, or have their share of
            the number.

    Returns:
        the detections, and how many rows were of a class that stands for nothing.
    """
    here = np.isin(predictions["image_id"].to_numpy(), truth.image_ids_I)
    predictions = predictions.filter(pa.array(here))
    classes = np.array(sorted(class_to_category), dtype=np.int64)
    columns = places(np.array([class_to_category[c] for c in classes.tolist()]), category_ids)
    class_ = np.append(columns, -1)[places(predictions["class_index"].to_numpy(), classes)]
    unmapped = int((class_ < 0).sum())
    if drop == "before_topk" and unmapped:
        predictions = predictions.filter(pa.array(class_ >= 0))
        class_ = class_[class_ >= 0]
    size = len(class_)
    found = Detections(
        np.searchsorted(truth.image_ids_I, predictions["image_id"].to_numpy()),
        class_,
        predictions["score"].to_numpy().astype(np.float64),
        _boxes(predictions),
        _masks(predictions),
        {"mask": np.full(size, np.nan), "box": np.full(size, np.nan)},
    )
    limit = truth.rules.max_per_image if max_per_image is None else max_per_image
    return considered(truth, found, limit), unmapped


def best_of_image(image_D: Ints, score_D: Floats, limit: int) -> Ints:
    """Rows of the ``limit`` best detections of each image; of equal ones the first."""
    order = np.lexsort((-score_D, image_D))
    return order[rank_in_group(image_D[order]) < limit]


def considered(truth: Truth, found: Detections, max_per_image: int | None) -> Detections:
    """Those that count: among the best of their image, of a class that was looked for there."""
    rows = np.arange(len(found.score_D))
    if max_per_image is not None:
        rows = np.sort(best_of_image(found.image_D, found.score_D, max_per_image))
    rows = rows[found.class_D[rows] >= 0]
    return found.take(rows[truth.looked_for(truth.key(found.image_D[rows], found.class_D[rows]))])


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


def _keys(lists: pa.ChunkedArray, category_ids: Sequence[int]) -> Ints:
    """Image position x number of classes + class of every entry, rising."""
    flat = places(pc.list_flatten(lists).to_numpy(), category_ids)  # pyright: ignore[reportAttributeAccessIssue]
    image = pc.list_parent_indices(lists).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    return np.unique(image[flat >= 0] * len(category_ids) + flat[flat >= 0])


def _boxes(table: pa.Table) -> Floats:
    """(N, 4) x, y, width, height."""
    boxes = matrix(table["bbox_xyxy"]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _masks(table: pa.Table) -> Masks:
    size = np.stack([table["height_px"].to_numpy(), table["width_px"].to_numpy()], axis=1)
    return Masks(table["mask_rle"].cast(pa.large_string()), size)
