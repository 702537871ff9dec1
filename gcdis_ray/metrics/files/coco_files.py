"""Reading of COCO and LVIS ground truth into columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_texts
from gcdis_ray.files.json_file import JsonLists, open_lists
from gcdis_ray.files.lvis_rules import (
    FEDERATED_LISTS,
    FREQUENCIES,
    check_alike,
    check_listed,
    has_lists,
)
from gcdis_ray.masks.run_lengths import run_areas
from gcdis_ray.metrics.average_precision import Category
from gcdis_ray.metrics.detection_columns import RULES, Truth
from gcdis_ray.metrics.files.coco_records import integer, no_fill, number, shape
from gcdis_ray.metrics.overlaps import Masks

_FIX = "give a COCO or LVIS annotation file with 'images', 'annotations' and 'categories'"


@dataclass(frozen=True)
class GroundTruthFile:
    truth: Truth
    categories: Sequence[Category]  # by rising id: columns of classes
    images: Mapping[int, tuple[int, int] | None]  # image id -> (height, width) where known
    wrong_frequencies: int = 0  # categories whose image_count speaks against their frequency


def read_ground_truth(path: Path, image_ids: Collection[int] | None = None) -> GroundTruthFile:
    """Read a COCO-format (or LVIS-format) annotation file.

    A file whose images have ``neg_category_ids`` and ``not_exhaustive_category_ids`` is LVIS.

    Args:
        image_ids: keep the objects of these images only. ``images`` has all of them.

    Raises:
        DataError: missing or unreadable file, missing fields, unknown ids, ids listed twice,
            malformed masks, frequencies that are none, LVIS's lists in some images only.
    """
    file = open_lists(path, _FIX)
    images, federated, listed = _images(file)
    if image_ids is not None and (unknown := sorted(set(image_ids) - images.keys())):
        raise DataError(f"image_id {unknown[0]} is not in the ground truth", where=file.path)
    categories, wrong = _categories(file)
    ids = np.array(sorted(images if image_ids is None else image_ids), dtype=np.int64)
    place = {image_id: n for n, image_id in enumerate(ids.tolist())}
    column = {category.category_id: n for n, category in enumerate(categories)}
    image, class_, boxes, areas, crowd, ignore = [], [], [], [], [], []
    masks, sizes, positions = [], [], []
    for position, row in enumerate(file.records("annotations")):
        where = file.place("annotations", position)
        bbox, mask, size = shape(row, images, column, where, check_runs=False)
        area = row.get("area")
        area = np.nan if area is None else number(area, "area", where)
        if area < 0:
            raise DataError(f"'area' is negative: {area}", where=where)
        if row["image_id"] not in place:
            continue
        image.append(place[row["image_id"]])
        class_.append(column[row["category_id"]])
        boxes.append(bbox or (np.nan,) * 4)
        areas.append(area)
        crowd.append(_flag(row, "iscrowd", where))
        ignore.append(_flag(row, "ignore", where))
        masks.append(mask)
        positions.append(position)
        sizes.append(size)
    _check_runs(file, masks, sizes, positions)
    order = np.lexsort((class_, image))
    for name, of_image in listed.items():
        for position, found in enumerate(of_image.values()):
            check_listed(name, found, column, file.place("images", position))
    keys = {
        name: np.unique(
            np.array(
                [
                    place[image_id] * len(categories) + column[category_id]
                    for image_id, found in of_image.items()
                    if image_id in place
                    for category_id in found
                ],
                dtype=np.int64,
            )
        )
        for name, of_image in listed.items()
    }
    truth = Truth(
        RULES["lvis" if federated else "coco"],
        len(categories),
        ids,
        np.array(image, dtype=np.int64)[order],
        np.array(class_, dtype=np.int64)[order],
        np.array(boxes, dtype=np.float64).reshape(-1, 4)[order],
        np.array(areas, dtype=np.float64)[order],
        np.array(crowd, dtype=np.bool_)[order],
        np.array(ignore, dtype=np.bool_)[order],
        Masks(
            [masks[n] for n in order.tolist()],
            np.array(sizes, dtype=np.int32).reshape(-1, 2)[order],
        ),
        *(keys[name] for name in FEDERATED_LISTS),
    )
    return GroundTruthFile(truth, categories, images, wrong if federated else 0)


def _flag(row: Mapping[str, Any], name: str, where: str) -> bool:
    value = row.get(name) or 0
    if value not in (0, 1):
        raise DataError(f"{name!r} must be 0 or 1, not {value!r}"[:200], where=where)
    return bool(value)


def _check_runs(
    file: JsonLists,
    masks: Sequence[Any],
    sizes: Sequence[tuple[int, int]],
    positions: Sequence[int],
) -> None:
    """Compressed run lengths, all at once: that takes a tenth of the time."""
    rows = [n for n, mask in enumerate(masks) if isinstance(mask, str)]
    num_pixels = np.array([sizes[n][0] * sizes[n][1] for n in rows], dtype=np.int64)
    good = run_areas(as_texts([masks[n] for n in rows]), num_pixels) >= 0
    if not good.all():
        bad = int(np.argmin(good))
        raise no_fill(num_pixels[bad], file.place("annotations", positions[rows[bad]]))


def _images(
    file: JsonLists,
) -> tuple[dict[int, tuple[int, int] | None], bool, dict[str, dict[int, list[int]]]]:
    images: dict[int, tuple[int, int] | None] = {}
    listed: dict[str, dict[int, list[int]]] = {name: {} for name in FEDERATED_LISTS}
    federated = None  # as the first image says
    for position, row in enumerate(file.records("images")):
        where = file.place("images", position)
        image_id = integer(row, "id", where)
        if image_id in images:
            raise DataError(f"image id {image_id} is listed twice", where=where)
        size = [row.get(name) for name in ("height", "width")]
        if None in size:
            images[image_id] = None
        else:
            height, width = (
                int(number(value, side, where))
                for value, side in zip(size, ("height", "width"), strict=True)
            )
            if height <= 0 or width <= 0:
                raise DataError(f"an image of {height} x {width} pixels"[:200], where=where)
            images[image_id] = height, width
        found = has_lists(row)
        check_alike(image_id, found, found if federated is None else federated, where)
        federated = found
        for name in FEDERATED_LISTS:
            listed[name][image_id] = _category_ids(row, name, where)
    return images, bool(federated), listed


def _category_ids(row: Mapping[str, Any], name: str, where: str) -> list[int]:
    ids = row.get(name) or []
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise DataError(f"{name!r} must be a list of category ids, not {ids!r}"[:200], where=where)
    return ids


def _categories(file: JsonLists) -> tuple[list[Category], int]:
    categories, wrong = [], 0
    for position, row in enumerate(file.records("categories")):
        where = file.place("categories", position)
        category_id = integer(row, "id", where)
        frequency = row.get("frequency")
        if frequency is not None and frequency not in FREQUENCIES:
            raise DataError(
                f"frequency {frequency!r} of category {category_id} is not r, c or f", where=where
            )
        count = row.get("image_count")
        if frequency is not None and isinstance(count, int):
            low, high = FREQUENCIES[frequency]
            wrong += not low <= count <= high
        categories.append(Category(category_id, str(row.get("name", category_id)), frequency))
    twice = [c for c, n in Counter(c.category_id for c in categories).items() if n > 1]
    if twice:
        raise DataError(f"category id {twice[0]} is listed twice", where=f"{file.path}: categories")
    return sorted(categories, key=lambda c: c.category_id), wrong


def class_ids(wanted: Sequence[str | int], categories: Sequence[Category]) -> list[int]:
    """Category ids of class names or ids. A text is a name first and an id if no class has it.

    Raises:
        DataError: a class that does not exist, with the nearest name; a name of several.
    """
    by_name: dict[str, list[int]] = {}
    for category in categories:
        by_name.setdefault(category.name, []).append(category.category_id)
    ids = {c.category_id for c in categories}
    found = []
    for entry in wanted:
        named = by_name.get(entry, []) if isinstance(entry, str) else []
        if len(named) > 1:
            raise DataError(
                f"{entry!r} names categories {named}", where="known classes", fix="give the id"
            )
        if named:
            found += named
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
