"""Reading of COCO and LVIS ground truth and results files, every mistake with its place.

Masks stay as they are written (polygons, or run lengths checked for size); rasterising belongs to
:mod:`gcdis_ray.metrics.detection`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from gcdis_ray.errors import DataError

RLE_BITS = 5  # of a number in each character of a compressed run length
LARGEST_RUN_CHARS = 7  # 7 * 5 bits hold every 32-bit run length


@dataclass(frozen=True)
class Category:
    category_id: int
    name: str
    frequency: str | None = None  # LVIS: r, c or f


@dataclass(frozen=True)
class Object:
    """An annotated object, or a detection when ``score`` counts. Boxes are x, y, width, height."""

    image_id: int
    category_id: int
    segmentation: Any = None  # polygons or a run-length dict; None: boxes only
    bbox_xywh: tuple[float, float, float, float] | None = None
    area_px: float | None = None
    crowd: bool = False
    ignore: bool = False
    score: float = 0.0


@dataclass(frozen=True)
class GroundTruthFile:
    images: Mapping[int, tuple[int, int] | None]  # image id -> (height, width) where known
    categories: Sequence[Category]  # by rising id
    objects: Sequence[Object]
    absent: Mapping[int, frozenset[int]] = field(default_factory=dict)  # LVIS: verified absent
    not_exhaustive: Mapping[int, frozenset[int]] = field(default_factory=dict)
    federated: bool = False  # LVIS rules: an image is annotated for some classes only


def read_ground_truth(path: Path) -> GroundTruthFile:
    """Read a COCO-format (or LVIS-format) annotation file.

    A file whose images have ``neg_category_ids`` and ``not_exhaustive_category_ids`` is LVIS.

    Raises:
        DataError: missing or unreadable file, missing fields, unknown ids, malformed masks.
    """
    data = _load(path)
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise DataError(
            "not a COCO annotation file: lists 'images', 'annotations', 'categories' are needed",
            where=str(path),
        )
    images: dict[int, tuple[int, int] | None] = {}
    absent, not_exhaustive = {}, {}
    for position, row in enumerate(data["images"]):
        where = f"{path}: images[{position}]"
        image_id = _integer(row, "id", where)
        size = (row.get("height"), row.get("width"))
        images[image_id] = None if None in size else (int(size[0]), int(size[1]))
        absent[image_id] = frozenset(row.get("neg_category_ids") or ())
        not_exhaustive[image_id] = frozenset(row.get("not_exhaustive_category_ids") or ())
    federated = bool(data["images"]) and all(
        "neg_category_ids" in row and "not_exhaustive_category_ids" in row for row in data["images"]
    )
    categories = []
    for position, row in enumerate(data["categories"]):
        category_id = _integer(row, "id", f"{path}: categories[{position}]")
        name = str(row.get("name", category_id))
        categories.append(Category(category_id, name, row.get("frequency")))
    categories.sort(key=lambda c: c.category_id)
    known_ids = {c.category_id for c in categories}
    objects = []
    for position, row in enumerate(data["annotations"]):
        where = f"{path}: annotations[{position}]"
        entry = _object(row, images, known_ids, where)
        area = row.get("area")
        objects.append(
            Object(
                **entry,
                area_px=None if area is None else _number(area, "area", where),
                crowd=bool(row.get("iscrowd", 0)),
                ignore=bool(row.get("ignore", 0)),
            )
        )
    return GroundTruthFile(images, categories, objects, absent, not_exhaustive, federated)


def read_results(path: Path, truth: GroundTruthFile) -> list[Object]:
    """Read a COCO results file: a list of detections with a mask, a box, or both.

    Raises:
        DataError: also for image or category ids that the ground truth does not have.
    """
    data = _load(path)
    if isinstance(data, dict) and isinstance(data.get("annotations"), list):
        data = data["annotations"]
    if not isinstance(data, list):
        raise DataError("not a COCO results file: a list of detections is needed", where=str(path))
    category_ids = {c.category_id for c in truth.categories}
    results = []
    for position, row in enumerate(data):
        where = f"{path}: [{position}]"
        entry = _object(row, truth.images, category_ids, where)
        if entry["segmentation"] is None and entry["bbox_xywh"] is None:
            raise DataError("neither 'segmentation' nor 'bbox'", where=where)
        if "score" not in row:
            raise DataError("no 'score'", where=where, fix="results need image_id, category_id, "
                            "score, and segmentation or bbox")  # fmt: skip
        results.append(Object(**entry, score=_number(row["score"], "score", where)))
    return results


def class_ids(wanted: Sequence[str | int], categories: Sequence[Category]) -> list[int]:
    """Category ids of class names or ids. A text is a name first and an id if no class has it.

    Raises:
        DataError: a class that does not exist, with the nearest name.
    """
    by_name = {c.name: c.category_id for c in categories}
    ids = {c.category_id for c in categories}
    found = []
    for entry in wanted:
        if isinstance(entry, str) and entry in by_name:
            found.append(by_name[entry])
        elif str(entry).lstrip("-").isdigit() and int(entry) in ids:
            found.append(int(entry))
        else:
            lower = {name.lower(): name for name in by_name}
            near = [lower[m] for m in get_close_matches(str(entry).lower(), lower, 1)]
            near = near or sorted(by_name)[:5]
            raise DataError(
                f"no class {entry!r} in the ground truth",
                where="known classes",
                fix=f"did you mean {', '.join(map(repr, near))}?",
            )
    return found


def _load(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})", where=str(path)) from error


def _integer(row: Any, name: str, where: str) -> int:
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}", where=where)
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{name!r} must be an integer, not {value!r}", where=where)
    return value


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name!r} must be a finite number, not {value!r}", where=where)
    return float(value)


def _object(
    row: Any,
    images: Mapping[int, tuple[int, int] | None],
    category_ids: Collection[int],
    where: str,
) -> dict[str, Any]:
    image_id, category_id = _integer(row, "image_id", where), _integer(row, "category_id", where)
    if image_id not in images:
        raise DataError(f"image_id {image_id} is not in the ground truth", where=where)
    if category_id not in category_ids:
        raise DataError(f"category_id {category_id} is not in the ground truth", where=where)
    bbox = row.get("bbox") or None
    if bbox is not None:
        if not isinstance(bbox, list) or len(bbox) != 4:
            raise DataError(f"'bbox' must be [x, y, width, height], not {bbox!r}", where=where)
        bbox = tuple(_number(v, "bbox", where) for v in bbox)
        if bbox[2] < 0 or bbox[3] < 0:
            raise DataError(f"'bbox' has negative size: {list(bbox)}", where=where)
    segmentation = row.get("segmentation") or None
    if segmentation is not None:
        segmentation = checked_segmentation(segmentation, images[image_id], where)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox_xywh": bbox,
    }


def checked_segmentation(segmentation: Any, size: tuple[int, int] | None, where: str) -> Any:
    """The segmentation itself if it is well formed for an image of ``size`` (height, width).

    Run lengths must fill the image exactly: the library that decodes them trusts its input.
    """
    if isinstance(segmentation, list):
        if size is None:
            raise DataError("polygons need the image's height and width", where=where)
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise DataError("a polygon must be a list of at least 3 x, y pairs", where=where)
            for value in polygon:
                _number(value, "segmentation", where)
        return segmentation
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise DataError("malformed mask: polygons, or 'size' and 'counts' are needed", where=where)
    mask_size, counts = segmentation["size"], segmentation["counts"]
    if (
        not isinstance(mask_size, list)
        or len(mask_size) != 2
        or not all(isinstance(v, int) and v > 0 for v in mask_size)
    ):
        raise DataError(f"malformed RLE: size {mask_size!r}", where=where)
    if size is not None and tuple(mask_size) != size:
        raise DataError(
            f"malformed RLE: size {mask_size}, but the image is {list(size)} (height, width)",
            where=where,
        )
    total = _sum_of_runs(counts)
    if total != mask_size[0] * mask_size[1]:
        raise DataError(
            "malformed RLE: runs "
            + ("cannot be read" if total is None else f"cover {total} pixels")
            + f", the mask has {mask_size[0] * mask_size[1]}",
            where=where,
        )
    return segmentation


def _sum_of_runs(counts: Any) -> int | None:
    """Pixels that the runs cover, None if they are no runs."""
    if isinstance(counts, list):
        good = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in counts)
        return sum(counts) if good else None
    if not isinstance(counts, str | bytes):
        return None
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        return None
    code = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if not len(code) or code.min() < 0 or code.max() > 63:
        return None
    ends = np.flatnonzero(code & 0x20 == 0)  # last character of each run
    if not len(ends) or ends[-1] != len(code) - 1:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= LARGEST_RUN_CHARS:
        return None
    place = np.arange(len(code)) - np.repeat(starts, ends - starts + 1)
    runs = np.add.reduceat((code & 0x1F) << (RLE_BITS * place), starts)
    negative = (code[ends] & 0x10) != 0
    runs -= negative * (1 << (RLE_BITS * (ends - starts + 1)))
    runs[1::2] = np.cumsum(runs[1::2])  # from the fourth on, a run is the change since two before
    tail = runs[2::2]
    runs[2::2] = np.cumsum(tail)
    return None if runs.min() < 0 else int(runs.sum())
