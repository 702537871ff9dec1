"""Streaming reader of COCO annotation files: one record at a time, every mistake with its record.

Annotation files come from outside, so nothing in them is believed: ids must be whole numbers, file
names must stay inside the image folder, boxes and masks must lie in their image.
"""

from __future__ import annotations

import math
import posixpath
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.files.lvis_rules import check_alike, has_lists
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import shown

_OUTSIDE_TOLERANCE_PX = 2.0  # boxes may leave the image by a rounding error; they are clipped
_MAX_ID = 2**63 - 1
_MAX_SIDE_PX = 1_000_000
_MAX_NAME = 1024
_PLACE = {"bbox", "segmentation"}
_FIX = "give a COCO annotation file with 'images', 'annotations' and 'categories'"


@dataclass(frozen=True)
class Annotation:
    """One checked annotation.

    ``bbox_xyxy`` is in absolute pixels inside the image; ``area_px`` the file's own area, that of
    the mask if the file has none; ``mask_rle`` is None where the file has a box only.
    """

    instance_id: int
    category_id: int
    bbox_xyxy: tuple[float, float, float, float]
    mask_rle: str | None
    area_px: float
    iscrowd: bool


# ---------------------------------------------------------------- reading files


class CocoFile:
    """A COCO annotation file, read as a stream; only categories are kept.

    Formats of this family differ in what an image or a category says: they override that.

    Raises:
        DataError: as :class:`JsonFile`; a section that is no list.
    """

    federated = False

    def __init__(self, folder: SourceFolder, name: str) -> None:
        self.json = JsonFile(folder, name, _FIX)
        self.sections = frozenset(self.json.outline.lists)

    @property
    def name(self) -> str:
        return self.json.path

    @property
    def has_annotations(self) -> bool:  # files of unlabeled images often have none
        return {"annotations", "categories"} <= self.sections

    @property
    def labels_images(self) -> bool:
        return self.has_annotations and not _PLACE & self.json.outline.fields["annotations"]

    @property
    def num_images(self) -> int | None:
        return self.json.outline.lists.get("images")

    def images(self) -> Iterator[ImageRecord]:
        """Image records in the order of the file.

        Raises:
            DataError: record without a field it needs, file name that leaves the image folder,
                LVIS's lists in some images only; at the end, if two images share an id.
        """
        ids = array("q")
        federated = has_lists(self.json.outline.fields.get("images", ()))
        for position, raw in enumerate(self.json.records("images")):
            where = self.json.place("images", position)
            record = self.image(raw, where)
            check_alike(record.image_id, has_lists(raw), federated, where)
            ids.append(record.image_id)
            yield record
        check_unique(ids, f"{self.name}: images")

    @property
    def categories(self) -> Sequence[CategoryRecord]:
        """Categories by rising id.

        Raises:
            DataError: category without id or name, two with one id.
        """
        return self._categories

    @cached_property
    def _categories(self) -> list[CategoryRecord]:
        found: dict[int, CategoryRecord] = {}
        for where, raw in self.raw_categories:
            category = self.category(raw, where)
            if category.category_id in found:
                raise DataError(f"category id {category.category_id} occurs twice", where=where)
            found[category.category_id] = category
        return [found[category_id] for category_id in sorted(found)]

    @cached_property
    def raw_categories(self) -> list[tuple[str, dict[str, Any]]]:
        """(place in the file, record)"""
        records = self.json.records("categories")
        return [(self.json.place("categories", i), raw) for i, raw in enumerate(records)]

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        """Annotations as they stand in the file: :func:`parse_annotation` checks one."""
        return self.json.records("annotations")

    # What other formats say in another way

    def image(self, raw: Mapping[str, Any], where: str) -> ImageRecord:
        return ImageRecord(
            whole(raw, "id", where),
            safe_file_name(self.file_name(raw), where),
            *image_size(raw, where),
        )

    def file_name(self, raw: Mapping[str, Any]) -> Any:
        return raw.get("file_name")

    def category(self, raw: Mapping[str, Any], where: str) -> CategoryRecord:
        category_id, name, synset = whole(raw, "id", where), raw.get("name"), raw.get("synset")
        if not isinstance(name, str) or not name:
            raise DataError(f"category {category_id} has no 'name'", where=where)
        return CategoryRecord(category_id, name, synset if isinstance(synset, str) else None)


def image_size(raw: Mapping[str, Any], where: str) -> tuple[int, int]:
    """(height_px, width_px) of an image record."""
    height_px, width_px = whole(raw, "height", where), whole(raw, "width", where)
    if not (0 < height_px <= _MAX_SIDE_PX and 0 < width_px <= _MAX_SIDE_PX):
        raise DataError(f"an image of {height_px} x {width_px} pixels", where=where)
    return height_px, width_px


def check_unique(ids: array[int], where: str) -> None:
    """Raise DataError if an image id occurs twice, with the position of its second record."""
    values = np.array(ids, np.int64)
    order = np.argsort(values, kind="stable")
    repeats = order[1:][values[order[1:]] == values[order[:-1]]]
    if repeats.size:
        position = int(repeats.min())
        raise DataError(f"image id {ids[position]} occurs twice", where=f"{where}[{position}]")


def safe_file_name(value: Any, where: str) -> str:
    """``value`` as a relative path that cannot leave the folder it is read from.

    Raises:
        DataError: it is no text, leaves the folder, or is written in a way that might.
    """
    if not isinstance(value, str) or not value:
        raise DataError("no 'file_name'", where=where)
    if (reason := _refused(value)) is not None:
        raise DataError(
            f"file_name {shown(value)} {reason}",
            where=where,
            fix="use names relative to the image folder",
        )
    return str(PurePosixPath(value))


def _refused(name: str) -> str | None:
    """Why a name is not read from a folder, as the end of a sentence; None if it can be."""
    path = PurePosixPath(name)
    if path.is_absolute() or posixpath.normpath(name).split("/")[0] == "..":
        return "leaves the image folder"
    if ".." in path.parts:
        return "goes up on its way: .. is not allowed"
    if not path.parts:
        return "is the image folder itself"
    if ":" in path.parts[0]:
        return "has a colon in its first part: names with a drive or scheme are refused"
    if "\\" in name:
        return "has a backslash: write / between folders"
    if any(ord(character) < 32 for character in name):
        return "has a control character"
    if len(name) > _MAX_NAME:
        return f"is longer than {_MAX_NAME} characters"
    return None


# ---------------------------------------------------------------- one annotation


def parse_annotation(raw: Mapping[str, Any], height_px: int, width_px: int) -> Annotation:
    """Check one annotation of an image of that size.

    Raises:
        DataError: missing or odd id, NaN or negative box, box or mask outside the image, mask
            without a pixel, neither mask nor box. ``what`` alone tells the reason.
    """
    instance_id, category_id = whole(raw, "id", None), whole(raw, "category_id", None)
    segmentation, bbox = raw.get("segmentation") or None, raw.get("bbox") or None
    mask_rle, mask_area = None, 0.0
    if segmentation is not None:
        mask_rle = coco_rle.rle_from_segmentation(segmentation, height_px, width_px)
        mask_area = coco_rle.area(mask_rle, height_px, width_px)
        if mask_area == 0:
            raise DataError("zero-area mask")
    if bbox is not None:
        box = _box_xyxy(bbox, height_px, width_px)
    elif mask_rle is not None:
        box = coco_rle.bbox_xyxy(mask_rle, height_px, width_px)
    else:
        raise DataError("neither mask nor box")
    area = raw.get("area")
    if area is None:
        area = mask_area or (box[2] - box[0]) * (box[3] - box[1])
    elif not _is_number(area) or area < 0:
        raise DataError(f"area {shown(area)} is not a number of pixels")
    return Annotation(
        instance_id, category_id, box, mask_rle, float(area), _flag(raw.get("iscrowd", 0))
    )


def parse_image_label(raw: Mapping[str, Any], height_px: int, width_px: int) -> Annotation:
    """Check an annotation that says what its image shows, and no place in it: the object is the
    whole image.

    Args:
        height_px, width_px: 0 where only the image file itself tells.

    Raises:
        DataError: missing or odd id.
    """
    instance_id, category_id = whole(raw, "id", None), whole(raw, "category_id", None)
    box = 0.0, 0.0, float(width_px), float(height_px)
    return Annotation(instance_id, category_id, box, None, float(height_px * width_px), False)


def _box_xyxy(bbox: Any, height_px: int, width_px: int) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list | tuple) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise DataError(f"box {shown(bbox)} is not four finite numbers x, y, width, height")
    x, y, width, height = (float(v) for v in bbox)
    if width <= 0 or height <= 0:
        raise DataError(f"box {[x, y, width, height]} has no extent")
    slack = _OUTSIDE_TOLERANCE_PX
    if min(x, y) < -slack or x + width > width_px + slack or y + height > height_px + slack:
        raise DataError(
            f"box {[x, y, width, height]} outside the image, {width_px} wide, {height_px} high"
        )
    box = max(x, 0.0), max(y, 0.0), min(x + width, width_px), min(y + height, height_px)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise DataError(f"box {[x, y, width, height]} outside the image")
    return box


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise DataError(f"iscrowd {shown(value)} is neither 0 nor 1")
    return bool(value)


def whole_number(value: Any) -> int | None:
    """``value`` as an id or a size: a whole number >= 0, also one written as 3.0; else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_ID:
        return None
    return value


def whole(raw: Mapping[str, Any], name: str, where: str | None) -> int:
    """Field ``name`` as an id or a size; raises DataError if it is none."""
    if raw.get(name) is None:
        raise DataError(f"no {name!r}", where=where)
    value = whole_number(raw[name])
    if value is None:
        raise DataError(f"{name} {shown(raw[name])} is not a whole number >= 0", where=where)
    return value
