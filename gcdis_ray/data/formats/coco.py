"""Streaming reader of COCO annotation files: one record at a time, every mistake with its record.

Annotation files come from outside, so nothing in them is believed: ids must be whole numbers, file
names must stay inside the image folder, boxes and masks must lie in their image.
"""

from __future__ import annotations

import posixpath
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.masks import coco_rle
from gcdis_ray.records.annotations import annotation_of
from gcdis_ray.records.boxes import inside
from gcdis_ray.records.fields import class_name, image_size, whole
from gcdis_ray.records.lvis_rules import check_alike, has_lists
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.records.segmentations import as_rle
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import shown

_MAX_NAME = 1024
_PLACE = {"bbox", "segmentation"}
_FIX = "give a COCO annotation file with 'images', 'annotations' and 'categories'"


@dataclass(frozen=True)
class PlacedAnnotation:
    """One checked annotation of an image of known size.

    ``bbox_xyxy`` is in absolute pixels inside the image; ``area_px`` the file's own area, that of
    the mask if the file has none; ``mask_rle`` is None where the file has a box only, or a mask
    that says nothing: ``mask_fault`` tells. One that covers no pixel is given, and told, too.
    """

    instance_id: int
    category_id: int
    bbox_xyxy: tuple[float, float, float, float]
    mask_rle: str | None
    area_px: float
    iscrowd: bool
    mask_fault: Refused | None = None


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
        category_id, synset = whole(raw, "id", where), raw.get("synset")
        if (name := class_name(raw, where)) is None:
            raise DataError(f"category {category_id} has no 'name'", where=where)
        return CategoryRecord(category_id, name, synset if isinstance(synset, str) else None)


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


def parse_annotation(
    raw: Mapping[str, Any],
    height_px: int,
    width_px: int,
    category_ids: Collection[int] | None = None,
) -> PlacedAnnotation:
    """Check one annotation of an image of that size.

    Args:
        category_ids: those that may occur; None: any.

    Raises:
        Refused: see :mod:`gcdis_ray.records.annotations`; a box or mask outside the image, a box
            without extent. ``what`` alone tells the reason.
    """
    found = annotation_of(raw, (height_px, width_px), category_ids)
    shape, fault, mask_rle, mask_area = found.shape, found.shape.mask_fault, None, 0.0
    if shape.mask is not None:
        mask_rle = as_rle(shape.mask)
        mask_area = coco_rle.area(mask_rle, height_px, width_px)
        if not mask_area:
            fault = Refused("zero-area mask", reason=Reason.MASK_EMPTY)
    if shape.box is not None:
        box = inside(shape.box, height_px, width_px)
    elif mask_rle is not None and fault is None:
        box = coco_rle.bbox_xyxy(mask_rle, height_px, width_px)
    else:
        assert fault is not None  # there is a box or a mask, and this one covers nothing
        raise fault
    area = found.area_px
    if area is None:
        area = mask_area or (box[2] - box[0]) * (box[3] - box[1])
    instance_id = found.instance_id
    assert instance_id is not None  # it is asked for
    return PlacedAnnotation(
        instance_id, found.category_id, box, mask_rle, area, found.iscrowd, fault
    )


def parse_image_label(
    raw: Mapping[str, Any],
    height_px: int,
    width_px: int,
    category_ids: Collection[int] | None = None,
) -> PlacedAnnotation:
    """Check an annotation that says what its image shows, and no place in it: the object is the
    whole image.

    Args:
        height_px, width_px: 0 where only the image file itself tells.
        category_ids: those that may occur; None: any.

    Raises:
        Refused: missing or odd id.
    """
    whole_image = {"bbox": [0, 0, width_px, height_px]}
    found = annotation_of({**raw, **whole_image}, None, category_ids)
    assert found.instance_id is not None
    box = 0.0, 0.0, float(width_px), float(height_px)
    area_px = float(height_px * width_px)
    return PlacedAnnotation(found.instance_id, found.category_id, box, None, area_px, False)
