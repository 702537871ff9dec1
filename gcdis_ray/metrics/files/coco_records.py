"""Records of COCO and LVIS JSON files, one by one, every mistake with its place."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_texts
from gcdis_ray.masks.run_lengths import run_areas

MAX_PX = 1e9  # of a box: larger numbers are mistakes, and their areas overflow
_MAX_RUN = 1 << 32  # run lengths are 32-bit in every library


def integer(row: Mapping[str, Any], name: str, where: str) -> int:
    """Member ``name`` of a record."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{name!r} must be an integer, not {value!r}", where=where)
    return value


def number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name!r} must be a finite number, not {value!r}", where=where)
    return float(value)


def shape(
    row: Mapping[str, Any],
    images: Mapping[int, tuple[int, int] | None],
    category_ids: Collection[int] | None,
    where: str,
    *,
    check_runs: bool = True,
) -> tuple[list[float] | None, Any, tuple[int, int]]:
    """Box (x, y, width, height), mask and (height, width) of an annotation or a detection.

    The mask is compressed run lengths (text), run lengths (a list) or polygons (arrays).

    Args:
        images: ids, with (height, width) where it is known.
        category_ids: those that may occur; None: any.
        check_runs: whether compressed run lengths are checked here, one mask at a time.

    Raises:
        DataError: naming what is wrong with the record.
    """
    image_id, category_id = integer(row, "image_id", where), integer(row, "category_id", where)
    if image_id not in images:
        raise DataError(f"image_id {image_id} is not in the ground truth", where=where)
    if category_ids is not None and category_id not in category_ids:
        raise DataError(f"category_id {category_id} is not in the ground truth", where=where)
    bbox = row.get("bbox") or None
    if bbox is not None:
        if not isinstance(bbox, list) or len(bbox) != 4:
            raise DataError(f"'bbox' must be [x, y, width, height], not {bbox!r}", where=where)
        bbox = [number(v, "bbox", where) for v in bbox]
        if max(map(abs, bbox)) > MAX_PX:
            raise DataError(f"'bbox' is not within {MAX_PX:g} pixels: {bbox}", where=where)
        if bbox[2] < 0 or bbox[3] < 0:
            raise DataError(f"'bbox' has negative size: {bbox}", where=where)
    mask, size = row.get("segmentation") or None, images[image_id]
    if mask is not None:
        mask, size = _mask(mask, size, where, check_runs)
    elif bbox is None:
        raise DataError("neither 'segmentation' nor 'bbox'", where=where)
    return bbox, mask, size or (-1, -1)


def _mask(
    mask: Any, size: tuple[int, int] | None, where: str, check_runs: bool
) -> tuple[Any, tuple[int, int]]:
    if isinstance(mask, list):
        if size is None:
            raise DataError("polygons need the image's height and width", where=where)
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise DataError("a polygon must be a list of at least 3 x, y pairs", where=where)
            for value in polygon:
                number(value, "segmentation", where)
        return [array("d", polygon) for polygon in mask], size
    if not isinstance(mask, dict) or not {"size", "counts"} <= mask.keys():
        raise DataError("malformed mask: polygons, or 'size' and 'counts' are needed", where=where)
    mask_size, counts = mask["size"], mask["counts"]
    if (
        not isinstance(mask_size, list)
        or len(mask_size) != 2
        or not all(isinstance(v, int) and 0 < v < 1 << 31 for v in mask_size)
        or mask_size[0] * mask_size[1] >= _MAX_RUN
    ):
        raise DataError(f"malformed RLE: size {mask_size!r}"[:200], where=where)
    if size is not None and tuple(mask_size) != size:
        raise DataError(
            f"malformed RLE: size {mask_size}, but the image is {list(size)} (height, width)",
            where=where,
        )
    num_pixels = mask_size[0] * mask_size[1]
    if isinstance(counts, str):
        good = counts.isascii() and (
            not check_runs or run_areas(as_texts([counts]), np.array([num_pixels]))[0] >= 0
        )
    else:
        good = (
            isinstance(counts, list)
            and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in counts)
            and sum(counts) == num_pixels
        )
    if not good:
        raise no_fill(num_pixels, where)
    return counts, (mask_size[0], mask_size[1])


def no_fill(num_pixels: int, where: str) -> DataError:
    return DataError(f"malformed RLE: its runs do not fill {num_pixels} pixels", where=where)
