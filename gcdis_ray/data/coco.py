"""Streaming reader of COCO annotation files: one record at a time, every mistake with its record.

Annotation files come from outside, so nothing in them is believed: ids must be whole numbers, file
names must stay inside the image folder, boxes and masks must lie in their image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from gcdis_ray.data import masks
from gcdis_ray.data.records import CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError

_OUTSIDE_TOLERANCE_PX = 2.0  # boxes may leave the image by a rounding error; they are clipped
_MAX_ID = 2**63 - 1
_MAX_SIDE_PX = 1_000_000
_MAX_DEPTH = 32  # COCO needs 5; the parser's memory grows with the square of the depth
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
    """A COCO annotation file, read as a stream: images and categories are kept, annotations not.

    Opening it reads it through once: whether it is whole, how deep it nests, what it holds.

    Raises:
        DataError: missing or unreadable file, no JSON, cut off, nested absurdly, no COCO file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        import ijson

        keys, depth = [], 0
        with _named_errors(path), path.open("rb") as file:
            for event, value in ijson.basic_parse(file, use_float=True):
                if event == "start_map" or event == "start_array":
                    depth += 1
                    if depth > _MAX_DEPTH:
                        raise DataError(f"nested more than {_MAX_DEPTH} deep", where=str(path))
                elif event == "end_map" or event == "end_array":
                    depth -= 1
                elif event == "map_key" and depth == 1:
                    keys.append(value)
        for section in ("images", "annotations", "categories"):
            if keys.count(section) > 1:
                raise DataError(f"more than one {section!r} in it", where=str(path), fix=_FIX)
        self.sections = frozenset(keys)  # files of unlabeled images often have no annotations

    @cached_property
    def images(self) -> list[ImageRecord]:
        """Image records in the order of the file.

        Raises:
            DataError: record without a field it needs, two images with one id, file name that
                leaves the image folder.
        """
        found: dict[int, ImageRecord] = {}
        for position, raw in enumerate(self._records("images")):
            where = f"{self.path}: images[{position}]"
            record = ImageRecord(
                _whole(raw, "id", where),
                safe_file_name(raw.get("file_name"), where),
                _whole(raw, "height", where),
                _whole(raw, "width", where),
            )
            height_px, width_px = record.height_px, record.width_px
            if not (0 < height_px <= _MAX_SIDE_PX and 0 < width_px <= _MAX_SIDE_PX):
                raise DataError(f"an image of {height_px} x {width_px} pixels", where=where)
            if record.image_id in found:
                raise DataError(f"image id {record.image_id} occurs twice", where=where)
            found[record.image_id] = record
        return list(found.values())

    @cached_property
    def categories(self) -> list[CategoryRecord]:
        """Categories by rising id.

        Raises:
            DataError: category without id or name, two with one id.
        """
        found: dict[int, CategoryRecord] = {}
        for position, raw in enumerate(self._records("categories")):
            where = f"{self.path}: categories[{position}]"
            category_id, name = _whole(raw, "id", where), raw.get("name")
            if not isinstance(name, str) or not name:
                raise DataError(f"category {category_id} has no 'name'", where=where)
            if category_id in found:
                raise DataError(f"category id {category_id} occurs twice", where=where)
            found[category_id] = CategoryRecord(category_id, name)
        return [found[category_id] for category_id in sorted(found)]

    def annotations(self) -> Iterator[dict[str, Any]]:
        """Annotations as they stand in the file: :func:`parse_annotation` checks one."""
        return self._records("annotations")

    def _records(self, section: str) -> Iterator[dict[str, Any]]:
        import ijson

        if section not in self.sections:
            raise DataError(f"no {section!r} in it", where=str(self.path), fix=_FIX)
        with _named_errors(self.path), self.path.open("rb") as file:
            for position, raw in enumerate(ijson.items(file, f"{section}.item", use_float=True)):
                if not isinstance(raw, dict):
                    raise DataError(
                        f"a record must be an object, not {type(raw).__name__}",
                        where=f"{self.path}: {section}[{position}]",
                    )
                yield raw


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    import ijson

    try:
        yield
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), fix="check the path") from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        first = (str(error).strip() or "empty").splitlines()[0]
        if "premature EOF" in first or "ncomplete" in first:
            what = "the file ends in the middle (truncated JSON)"
        elif re.search("NaN|Infinity", str(error)):
            what = "not valid JSON (NaN and Infinity are no JSON numbers)"
        else:
            what = f"not valid JSON ({first[:120]})"
        raise DataError(what, where=str(path), fix=_FIX) from None


def safe_file_name(value: Any, where: str) -> str:
    """``value`` as a relative path that cannot leave the folder it is read from.

    Raises:
        DataError: it is no text, absolute, or climbs out.
    """
    if not isinstance(value, str) or not value:
        raise DataError("no 'file_name'", where=where)
    path = PurePosixPath(value)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in value
        or ":" in value.split("/")[0]
        or any(ord(character) < 32 for character in value)
        or len(value) > 1024
    ):
        raise DataError(
            f"file_name {value[:80]!r} leaves the image folder",
            where=where,
            fix="use names relative to the image folder",
        )
    return str(path)


# ---------------------------------------------------------------- one annotation


def parse_annotation(raw: Mapping[str, Any], height_px: int, width_px: int) -> Annotation:
    """Check one annotation of an image of that size.

    Raises:
        DataError: missing or odd id, NaN or negative box, box or mask outside the image, mask
            without a pixel, neither mask nor box. ``what`` alone tells the reason.
    """
    instance_id, category_id = _whole(raw, "id", None), _whole(raw, "category_id", None)
    segmentation, bbox = raw.get("segmentation") or None, raw.get("bbox") or None
    mask_rle, mask_area = None, 0.0
    if segmentation is not None:
        mask_rle = masks.rle_from_segmentation(segmentation, height_px, width_px)
        mask_area = masks.area(mask_rle, height_px, width_px)
        if mask_area == 0:
            raise DataError("zero-area mask")
    if bbox is not None:
        box = _box_xyxy(bbox, height_px, width_px)
    elif mask_rle is not None:
        box = masks.bbox_xyxy(mask_rle, height_px, width_px)
    else:
        raise DataError("neither mask nor box")
    area = raw.get("area")
    if area is None:
        area = mask_area or (box[2] - box[0]) * (box[3] - box[1])
    elif not _is_number(area) or area < 0:
        raise DataError(f"area {area!r} is not a number of pixels")
    return Annotation(
        instance_id, category_id, box, mask_rle, float(area), _flag(raw.get("iscrowd", 0))
    )


def _box_xyxy(bbox: Any, height_px: int, width_px: int) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list | tuple) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        raise DataError(f"box {bbox!r} is not four finite numbers x, y, width, height"[:200])
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
        raise DataError(f"iscrowd {value!r} is neither 0 nor 1")
    return bool(value)


def whole_number(value: Any) -> int | None:
    """``value`` as an id or a size: a whole number >= 0, also one written as 3.0; else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_ID:
        return None
    return value


def _whole(raw: Mapping[str, Any], name: str, where: str | None) -> int:
    if raw.get(name) is None:
        raise DataError(f"no {name!r}", where=where)
    value = whole_number(raw[name])
    if value is None:
        raise DataError(f"{name} {raw[name]!r} is not a whole number >= 0"[:200], where=where)
    return value
