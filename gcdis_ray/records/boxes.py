"""Boxes of records: ``[x, y, width, height]`` in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcdis_ray.records.fields import is_number
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.words import shown

MAX_PX = 1e9  # of a box: larger numbers are mistakes, and their areas overflow
_OUTSIDE_TOLERANCE_PX = 2.0  # boxes may leave the image by a rounding error; they are clipped

Box = tuple[float, float, float, float]


def box_of(raw: Mapping[str, Any]) -> Box | None:
    """(x, y, width, height) of a record, None if it has no box. It may lie anywhere.

    Raises:
        Refused: not four finite numbers, a negative extent, or far beyond any image.
    """
    given = raw.get("bbox")
    if given is None or given == []:
        return None
    if not isinstance(given, list | tuple) or len(given) != 4 or not all(map(is_number, given)):
        raise Refused(
            f"box {shown(given)} is not four finite numbers x, y, width, height",
            reason=Reason.BOX_FORM,
        )
    x, y, width, height = map(float, given)
    if max(abs(x), abs(y), abs(width), abs(height)) > MAX_PX:
        raise Refused(
            f"box {shown(given)} is not within {MAX_PX:g} pixels", reason=Reason.BOX_TOO_FAR
        )
    if width < 0 or height < 0:
        raise Refused(
            f"box {shown(given)} has a negative width or height", reason=Reason.BOX_NEGATIVE
        )
    return x, y, width, height


def inside(box: Box, height_px: int, width_px: int) -> Box:
    """``box`` as x0, y0, x1, y1 in an image of that size, cut at its edges.

    Raises:
        Refused: it has no extent, or leaves the image by more than a rounding error.
    """
    x, y, width, height = box
    if width == 0 or height == 0:
        raise Refused(f"box {list(box)} has no extent", reason=Reason.BOX_EMPTY)
    slack = _OUTSIDE_TOLERANCE_PX
    found = max(x, 0.0), max(y, 0.0), min(x + width, width_px), min(y + height, height_px)
    outside = min(x, y) < -slack or x + width > width_px + slack or y + height > height_px + slack
    if outside or found[2] <= found[0] or found[3] <= found[1]:
        raise Refused(
            f"box {list(box)} outside the image, {width_px} wide, {height_px} high",
            reason=Reason.BOX_OUTSIDE,
        )
    return found
