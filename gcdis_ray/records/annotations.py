"""The one checker of annotations and detections: every reader judges them by it, in its words.

What a record says must be certain and well formed; that is checked here, in one order, so that all
readers name the same fault. Whether it is of use, such as a box outside the image, is for the
reader: see :data:`gcdis_ray.records.reasons.SCORED_ANYWAY`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gcdis_ray.records.boxes import Box, box_of
from gcdis_ray.records.fields import area_px, flag, number, whole
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.records.segmentations import Segmentation, Size, segmentation_of
from gcdis_ray.words import shown

# all that is read of an annotation, for who asks whether any of it has changed
FIELDS = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "ignore")


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a record says that something is: a box, a mask, or both.

    Args:
        box: (x, y, width, height) in pixels.
        mask_fault: why it has no mask though it says something of one.
    """

    box: Box | None
    mask: Segmentation | None
    mask_fault: Refused | None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One checked annotation. ``area_px`` is the file's own, None if it gives none."""

    instance_id: int | None
    category_id: int
    shape: Shape
    area_px: float | None
    iscrowd: bool
    ignore: bool


@dataclass(frozen=True, slots=True)
class Detection:
    """One checked entry of a results file; ``score`` is finite."""

    category_id: int
    shape: Shape
    score: float


def image_id_of(raw: Mapping[str, Any], images: Collection[int]) -> int:
    """The image of a record.

    Raises:
        Refused: ``image_id`` is no id, or none of ``images``.
    """
    image_id = whole(raw, "image_id")
    if image_id not in images:
        raise no_image(image_id)
    return image_id


def no_image(image_id: object) -> Refused:
    return Refused(f"no image with id {shown(image_id)}", reason=Reason.NO_IMAGE)


def no_category(category_id: object) -> Refused:
    return Refused(f"no category with id {shown(category_id)}", reason=Reason.NO_CATEGORY)


def annotation_of(
    raw: Mapping[str, Any],
    size: Size | None,
    category_ids: Collection[int] | None,
    *,
    needs_id: bool = True,
    check_runs: bool = True,
) -> Annotation:
    """Check one annotation, but for its image.

    Args:
        size: (height, width) of its image in pixels, None where that is not known.
        category_ids: those that may occur; None: any.
        needs_id: whether it must have an ``id``; one that it has is checked.
        check_runs: see :func:`gcdis_ray.records.segmentations.segmentation_of`.

    Raises:
        Refused: naming the first thing that is wrong with it.
    """
    instance_id = whole(raw, "id") if needs_id or raw.get("id") is not None else None
    category_id = _category_id(raw, category_ids)
    shape = shape_of(raw, size, check_runs=check_runs)
    area, crowd, ignore = area_px(raw), flag(raw, "iscrowd"), flag(raw, "ignore")
    return Annotation(instance_id, category_id, shape, area, crowd, ignore)


def detection_of(
    raw: Mapping[str, Any], size: Size | None, category_ids: Collection[int] | None
) -> Detection:
    """Check one entry of a results file, but for its image. Args and Raises: as
    :func:`annotation_of`."""
    category_id = _category_id(raw, category_ids)
    shape = shape_of(raw, size)
    if raw.get("score") is None:
        raise Refused("no 'score'", reason=Reason.MISSING)
    return Detection(category_id, shape, number(raw["score"], "score"))


def shape_of(raw: Mapping[str, Any], size: Size | None, *, check_runs: bool = True) -> Shape:
    """Box and mask of a record. A mask that says nothing is as none, if there is a box.

    Raises:
        Refused: one of them is malformed; there is neither.
    """
    box, mask = box_of(raw), segmentation_of(raw, size, check_runs=check_runs)
    fault = mask if isinstance(mask, Refused) else None
    mask = mask if isinstance(mask, Segmentation) else None
    if box is None and mask is None:
        raise fault or Refused("neither mask nor box", reason=Reason.NO_SHAPE)
    return Shape(box, mask, fault)


def _category_id(raw: Mapping[str, Any], category_ids: Collection[int] | None) -> int:
    category_id = whole(raw, "category_id")
    if category_ids is not None and category_id not in category_ids:
        raise no_category(category_id)
    return category_id
