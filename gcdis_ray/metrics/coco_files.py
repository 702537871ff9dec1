"""Reading of COCO and LVIS ground truth and results files, every mistake with its place.

Masks stay as they are written (polygons, or run lengths checked for size); rasterising belongs to
:mod:`gcdis_ray.metrics.detection`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.errors import DataError

# numbers of at most 7 characters, which hold every 32-bit run; all but the last have bit 5
_NUMBERS = re.compile(rb"(?:[P-o]{0,6}[0-O])+")
_RUNS_AT_ONCE = 2048


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
    objects, runs = [], _Runs()
    for position, row in enumerate(data["annotations"]):
        where = f"{path}: annotations[{position}]"
        entry = _object(row, images, known_ids, where, runs)
        area = row.get("area")
        objects.append(
            Object(
                **entry,
                area_px=None if area is None else _number(area, "area", where),
                crowd=bool(row.get("iscrowd", 0)),
                ignore=bool(row.get("ignore", 0)),
            )
        )
    runs.check()
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
    results, runs = [], _Runs()
    for position, row in enumerate(data):
        where = f"{path}: [{position}]"
        entry = _object(row, truth.images, category_ids, where, runs)
        if entry["segmentation"] is None and entry["bbox_xywh"] is None:
            raise DataError("neither 'segmentation' nor 'bbox'", where=where)
        if "score" not in row:
            raise DataError("no 'score'", where=where, fix="results need image_id, category_id, "
                            "score, and segmentation or bbox")  # fmt: skip
        results.append(Object(**entry, score=_number(row["score"], "score", where)))
    runs.check()
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
    runs: _Runs,
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
        segmentation = _checked_segmentation(segmentation, images[image_id], where, runs)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox_xywh": bbox,
    }


@dataclass
class _Runs:
    """Compressed run lengths whose check waits for company: together it costs a tenth."""

    counts: list[str] = field(default_factory=list)
    num_pixels: list[int] = field(default_factory=list)
    where: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Run lengths must fill their image: the library that decodes them trusts its input.

        Raises:
            DataError: naming the first that does not.
        """
        for start in range(0, len(self.counts), _RUNS_AT_ONCE):
            part = slice(start, start + _RUNS_AT_ONCE)
            good = _fill(self.counts[part], np.array(self.num_pixels[part]))
            if not good.all():
                bad = start + int(np.argmin(good))
                raise _no_fill(self.num_pixels[bad], self.where[bad])


def _no_fill(num_pixels: int, where: str) -> DataError:
    return DataError(f"malformed RLE: its runs do not fill {num_pixels} pixels", where=where)


def _checked_segmentation(
    segmentation: Any, size: tuple[int, int] | None, where: str, runs: _Runs
) -> Any:
    """The segmentation itself if it is well formed for an image of ``size`` (height, width)."""
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
    num_pixels = mask_size[0] * mask_size[1]
    if isinstance(counts, str):
        runs.counts.append(counts)
        runs.num_pixels.append(num_pixels)
        runs.where.append(where)
    elif (
        not isinstance(counts, list)
        or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in counts)
        or sum(counts) != num_pixels
    ):
        raise _no_fill(num_pixels, where)
    return segmentation


def _fill(counts: Sequence[str], num_pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which compressed run lengths are well formed and cover exactly so many pixels.

    A number has five bits a character, lowest first; bit 5 says that it goes on, bit 4 of the last
    character that it is negative. From the fourth on it is the change since two runs before.
    """
    raw = [text.encode("ascii", "replace") for text in counts]
    good = np.array(
        [
            text.isascii() and bool(_NUMBERS.fullmatch(data))
            for text, data in zip(counts, raw, strict=True)
        ]
    )
    kept = [text for text, ok in zip(raw, good.tolist(), strict=True) if ok]
    if not kept:
        return good
    code = np.frombuffer(b"".join(kept), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(code < 32)  # the last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    place = np.arange(len(code)) - np.repeat(starts, lengths)
    values = np.add.reduceat((code & 31) << (5 * place), starts)
    values -= ((code[ends] & 16) != 0) * (np.int64(1) << (5 * lengths))
    text_end = np.cumsum([len(text) for text in kept]) - 1
    owner = np.searchsorted(text_end, ends)
    index = np.arange(len(ends)) - np.searchsorted(owner, np.arange(len(kept)))[owner]
    # three chains per mask, summed up separately: the first run, the odd ones, the other even ones
    chain = 3 * owner + np.where(index == 0, 0, 2 - index % 2)
    order = np.argsort(chain, kind="stable")
    sums = np.cumsum(values[order])
    first = np.flatnonzero(np.diff(chain[order], prepend=-1))
    before = sums[first] - values[order][first]
    runs = sums - np.repeat(before, np.diff(np.append(first, len(order))))
    covered = np.bincount(owner[order], weights=runs, minlength=len(kept))
    negative = np.bincount(owner[order], weights=runs < 0, minlength=len(kept)) > 0
    good[good] = (covered == num_pixels[good]) & ~negative
    return good
