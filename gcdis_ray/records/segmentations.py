"""Masks of records, in any of COCO's three forms, checked before C code sees them.

C code trusts its input: a vertex at 4e9 is written beyond its memory, an outline of 1e8 pixels
takes gigabytes, and run lengths that do not fill their image keep it busy for ever.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.records.fields import MAX_SIDE_PX, is_number, not_whole, whole_number
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.words import cut, shown

MAX_OUTLINE_PX = 1 << 21  # of a mask; 100 bytes a pixel while it is drawn
_OUTSIDE_TOLERANCE_PX = 2.0  # polygons may leave the image by a rounding error; they are clipped

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A mask that is well formed.

    Args:
        value: compressed run lengths (text), run lengths (list of int) or polygons (arrays of x, y,
            x, y, ... in pixels, each of three or more points).
        size: (height, width) in pixels of its image.
    """

    value: str | list[int] | list[array[float]]
    size: Size


def segmentation_of(
    raw: Mapping[str, Any], size: Size | None, *, check_runs: bool = True
) -> Segmentation | Refused | None:
    """The mask of a record, None if it has none.

    Args:
        size: (height, width) of its image in pixels, None where that is not known.
        check_runs: whether compressed run lengths are checked, which takes less time for many at
            once.

    Returns:
        ``Refused`` if the mask is well formed and says nothing: it has no polygon of three points.

    Raises:
        Refused: it is malformed, or of another size than its image.
    """
    given = raw.get("segmentation")
    if given is None or given in ([], {}, ""):
        return None
    if isinstance(given, Mapping):
        return _runs(given, size, check_runs)
    if isinstance(given, list | tuple):
        return _polygons(given, size)
    raise Refused(
        f"mask {shown(given)} is neither polygons nor run lengths", reason=Reason.MASK_KIND
    )


def as_rle(mask: Segmentation) -> str:
    """Compressed run lengths of a mask, which may cover no pixel.

    Raises:
        Refused: a polygon leaves the image by more than a rounding error.
    """
    height_px, width_px = mask.size
    if isinstance(mask.value, str):
        return mask.value
    if mask.value and isinstance(mask.value[0], array):
        polygons = cast("list[array[float]]", mask.value)
        _check_inside(polygons, mask.size)
        return coco_rle.rle_from_polygons(polygons, height_px, width_px)
    return coco_rle.rle_from_counts(cast("list[int]", mask.value), height_px, width_px)


# ---------------------------------------------------------------- polygons


def _polygons(given: Sequence[Any], size: Size | None) -> Segmentation | Refused:
    if is_number(given[0]):
        raise _odd_polygon("the list is a polygon itself: write [[x, y, x, y, ...]]")
    polygons = [_polygon(points) for points in given]
    polygons = [points for points in polygons if len(points) >= 6]  # others cover nothing
    if not polygons:
        return Refused("mask: no polygon with three or more points", reason=Reason.MASK_NONE)
    if size is None:
        raise Refused("polygons need the image's height and width", reason=Reason.NO_SIZE)
    _check_size(size)
    rough = sum(len(points) / 2 * (max(points) - min(points)) for points in polygons)  # and more
    if rough > MAX_OUTLINE_PX and sum(map(_outline_px, polygons)) > MAX_OUTLINE_PX:
        raise Refused(
            f"mask: its outline is longer than {MAX_OUTLINE_PX} pixels",
            reason=Reason.POLYGON_TOO_LONG,
        )
    return Segmentation(polygons, size)


def _polygon(points: Any) -> array[float]:
    if not isinstance(points, list | tuple):
        raise _odd_polygon(f"{shown(points)} is no list of numbers")
    if not {*map(type, points)} <= {int, float}:
        odd = next(value for value in points if type(value) not in (int, float))
        if isinstance(odd, list | tuple | dict):
            raise _odd_polygon("a polygon must be a flat list of x, y, x, y, ...")
        raise _odd_polygon(f"{shown(odd)} is no number")
    if len(points) % 2:
        raise _odd_polygon("a polygon must be a flat list of x, y, x, y, ...: one is left over")
    try:
        found = array("d", points)
    except OverflowError:
        found = array("d", [float("inf")])
    if not found:
        return found
    if math.isnan(sum(found)):
        raise _odd_polygon("NaN coordinate in a polygon")
    if (largest := max(max(found), -min(found))) > MAX_SIDE_PX:
        raise Refused(
            f"mask outside the image: a polygon with a coordinate of {largest:g}, at most "
            f"{MAX_SIDE_PX:g} are allowed",
            reason=Reason.POLYGON_TOO_FAR,
        )
    return found


def _odd_polygon(what: str) -> Refused:
    return Refused(f"mask: {what}", reason=Reason.POLYGON_FORM)


def _outline_px(points: array[float]) -> float:
    """What drawing takes time and memory by."""
    corners = np.frombuffer(points).reshape(-1, 2)
    return float(np.abs(np.roll(corners, 1, axis=0) - corners).max(axis=1).sum())


def _check_inside(polygons: Sequence[array[float]], size: Size) -> None:
    height_px, width_px = size
    slack = _OUTSIDE_TOLERANCE_PX
    for points in polygons:
        x, y = points[0::2], points[1::2]
        left, right, top, bottom = min(x), max(x), min(y), max(y)
        outside = min(left, top) < -slack or right > width_px + slack or bottom > height_px + slack
        if outside:
            raise Refused(
                f"mask outside the image: a polygon spans x {left:g}..{right:g}, "
                f"y {top:g}..{bottom:g}, the image is {width_px} wide and {height_px} high",
                reason=Reason.MASK_OUTSIDE,
            )


# ---------------------------------------------------------------- run lengths


def _runs(given: Mapping[str, Any], size: Size | None, check_runs: bool) -> Segmentation:
    for name in ("size", "counts"):
        if given.get(name) is None:
            raise Refused(f"mask: run lengths without {name}", reason=Reason.RLE_FORM)
    own, counts = _size(given["size"]), given["counts"]
    if size is not None and own != size:
        raise Refused(
            f"mask outside the image: its size is {list(own)}, the image's {list(size)} "
            "(height, width)",
            reason=Reason.RLE_SIZE,
        )
    if isinstance(counts, str):
        try:
            if check_runs:
                coco_rle.check_rle(counts, *own)
            elif not counts.isascii():
                coco_rle.counts_from_rle(counts)
        except DataError as error:
            raise Refused(error.what, reason=Reason.RLE_RUNS) from None
        return Segmentation(counts, own)
    if not isinstance(counts, list | tuple):
        raise Refused(
            f"mask: counts {shown(counts)} are neither a text nor a list", reason=Reason.RLE_FORM
        )
    return Segmentation(_whole_counts(counts, own), own)


def _size(given: Any) -> Size:
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise Refused(f"mask: size {shown(given)} is not [height, width]", reason=Reason.RLE_FORM)
    sides = [whole_number(side) for side in given]
    if None in sides:
        odd = next(side for side in given if whole_number(side) is None)
        raise Refused(f"mask: {not_whole(odd, 'size').what}", reason=Reason.RLE_FORM)
    height_px, width_px = (side for side in sides if side is not None)
    _check_size((height_px, width_px))
    return height_px, width_px


def _check_size(size: Size) -> None:
    try:
        coco_rle.check_size(*size)
    except DataError as error:
        raise Refused(f"mask: {cut(error.what)}", reason=Reason.TOO_LARGE) from None


def _whole_counts(counts: Sequence[Any], size: Size) -> list[int]:
    """Run lengths as integers that fill the image."""
    runs = list(counts)
    if not {*map(type, runs)} <= {int}:
        for place, run in enumerate(runs):
            if (number := whole_number(run)) is None:
                raise Refused(f"mask: {not_whole(run, 'run length').what}", reason=Reason.RLE_RUNS)
            runs[place] = number
    num_pixels = size[0] * size[1]
    if (least := min(runs, default=0)) < 0:
        raise Refused(f"mask: negative run {shown(least)} in RLE counts", reason=Reason.RLE_RUNS)
    if (total := sum(runs)) != num_pixels:
        raise Refused(
            f"mask outside the image: runs cover {shown(total)} pixels, the image has "
            f"{size[0]} x {size[1]} = {num_pixels}",
            reason=Reason.RLE_RUNS,
        )
    return runs
