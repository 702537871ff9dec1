"""Numbers and flags of records, as people and libraries write them.

A whole number may be written as ``3.0``: its meaning is certain. A text is never a number: readers
of the same file disagree about ``"3"``, so it is named for what it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.words import shown

MAX_ID = 2**63 - 1
MAX_SIDE_PX = 1_000_000
_MAX_EXACT = 2**53  # from here on decimal numbers skip whole ones


def whole_number(value: Any) -> int | None:
    """``value`` as an id or a size: a whole number >= 0, also one written as 3.0; else None."""
    if type(value) is int:
        return value if 0 <= value <= MAX_ID else None
    if isinstance(value, float) and value.is_integer() and 0 <= value < _MAX_EXACT:
        return int(value)
    return None


def whole(raw: Mapping[str, Any], name: str, where: str | None = None) -> int:
    """Field ``name`` as an id or a size.

    Args:
        where: the record, for errors.

    Raises:
        Refused: it is missing or no whole number >= 0 that 64 bits hold.
    """
    value = raw.get(name)
    number = whole_number(value)
    if number is not None:
        return number
    if value is None:
        raise Refused(f"no {name!r}", reason=Reason.MISSING, where=where)
    refused = not_whole(value, name)
    raise refused if where is None else refused.at(where)


def not_whole(value: Any, name: str) -> Refused:
    """Why a value is no whole number >= 0."""
    seen = f"{name} {shown(value)}"
    if isinstance(value, str):
        return Refused(f"{seen} is a text, not a whole number", reason=Reason.TEXT)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Refused(f"{seen} is not a whole number", reason=Reason.NO_NUMBER)
    if isinstance(value, float) and not value.is_integer():  # NaN and infinity, too
        return Refused(f"{seen} is not a whole number", reason=Reason.NOT_WHOLE)
    if value < 0:
        return Refused(f"{seen} is negative, not a whole number >= 0", reason=Reason.NEGATIVE)
    if isinstance(value, float):
        what = f"{seen} is a decimal number beyond 2^53: which whole number it is cannot be told"
    else:
        what = f"{seen} is a whole number beyond 64 bits"
    return Refused(what, reason=Reason.TOO_LARGE)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number, and no truth value."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return kind is int and abs(value) < 2**1023


def number(value: Any, name: str) -> float:
    """Raises Refused if ``value`` is no finite number."""
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        raise Refused(f"{name} {shown(value)} is a text, not a number", reason=Reason.TEXT)
    raise Refused(f"{name} {shown(value)} is not a finite number", reason=Reason.NO_NUMBER)


def area_px(raw: Mapping[str, Any]) -> float | None:
    """``area`` of an annotation in pixels, None if it has none.

    Raises:
        Refused: it is no number, or negative.
    """
    if raw.get("area") is None:
        return None
    area = number(raw["area"], "area")
    if area < 0:
        raise Refused(f"area {shown(raw['area'])} is negative", reason=Reason.NEGATIVE)
    return area


def flag(raw: Mapping[str, Any], name: str) -> bool:
    """``iscrowd`` or another mark: 0 or 1, false or true; none or null is 0.

    Raises:
        Refused: it is anything else.
    """
    value = raw.get(name)
    if value is None:
        return False
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        raise Refused(f"{name} {shown(value)} is a text, not 0 or 1", reason=Reason.TEXT)
    raise Refused(f"{name} {shown(value)} is neither 0 nor 1", reason=Reason.FLAG)


def image_size(raw: Mapping[str, Any], where: str) -> tuple[int, int]:
    """(height_px, width_px) of an image record.

    Raises:
        Refused: one is missing, no whole number, zero or absurdly large.
    """
    height_px, width_px = whole(raw, "height", where), whole(raw, "width", where)
    if not (0 < height_px <= MAX_SIDE_PX and 0 < width_px <= MAX_SIDE_PX):
        raise Refused(
            f"an image of {shown(height_px)} x {shown(width_px)} pixels (height x width)",
            reason=Reason.TOO_LARGE if height_px and width_px else Reason.NO_SIZE,
            where=where,
        )
    return height_px, width_px


def class_name(raw: Mapping[str, Any], where: str) -> str | None:
    """The name of a category, also of one that is a whole number; None if it has none.

    Raises:
        Refused: it is neither text nor whole number.
    """
    name = raw.get("name")
    if name is None or isinstance(name, str):
        return name or None
    if (value := whole_number(name)) is None:
        raise Refused(
            f"name {shown(name)} is neither a text nor a whole number",
            reason=Reason.NO_NUMBER,
            where=where,
        )
    return str(value)
