"""Records of COCO and LVIS JSON files, one by one, every mistake with its place.

Large files are parsed as a stream: their size bounds nothing but the time they take.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson
import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.arrow_columns import as_texts
from gcdis_ray.metrics.run_lengths import run_areas

_MAX_DEPTH = 32  # annotations need 5
_SMALL_BYTES = 256 << 20
_OPENING, _CLOSING = ("start_map", "start_array"), ("end_map", "end_array")


class TopLists:
    """The lists at the top of a JSON object. A small file is parsed once, any other as a stream;
    so is a file that is anything else or broken, for the mistake to be named.

    Raises:
        DataError: see :func:`top_lists` and :func:`records`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = _parsed(path)
        whole = self._whole
        if whole is None:
            self.names = top_lists(path)
        else:
            self.names = {name for name in whole if isinstance(whole[name], list)}

    def records(self, name: str) -> Iterator[Any]:
        """Elements of the list ``name``, in order."""
        if self._whole is None:
            return records(self.path, top=name)
        return iter(self._whole[name] if name in self.names else ())


def _parsed(path: Path) -> dict[str, Any] | None:
    """A small file with a JSON object, None for any other."""
    try:
        if Path(path).stat().st_size > _SMALL_BYTES:
            return None
        text = Path(path).read_text("utf-8")
        found = json.loads(text, parse_int=_int64, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _int64(text: str) -> int:
    value = int(text)
    if -(1 << 63) <= value < 1 << 63:
        return value
    raise ValueError("more than 64 bits")


def _no_number(text: str) -> float:
    raise ValueError(text)


def records(path: Path, *, top: str = "") -> Iterator[Any]:
    """Elements of the list below ``top`` (the outermost list if not given), in order.

    Only for files that :func:`top_lists` has seen.

    Raises:
        DataError: missing, unreadable or broken file.
    """
    place, read = 0, 0
    try:
        with Path(path).open("rb") as file:
            try:
                for record in ijson.items(file, f"{top}.item" if top else "item", use_float=True):
                    yield record
                    place += 1
            finally:
                read = file.tell()
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(
            f"not JSON ({_first_line(error)}), at or before byte {read}",
            where=str(path) if top else f"{path}: [{place}]",
            fix="write or copy the file again",
        ) from error


def _first_line(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(error)
    if re.search("NaN|Infinity", text):
        return "NaN and Infinity are no JSON numbers"
    return text.splitlines()[0].strip() if text else type(error).__name__


def top_lists(path: Path) -> set[str]:
    """Names of the lists of the outermost object; an empty name for an outermost list.

    Looks at the file as far as it is JSON; broken files are for :func:`records` to name.

    Raises:
        DataError: missing or unreadable file, or one that nests absurdly: the memory of the parser
            behind :func:`records` grows with the square of the depth.
    """
    found, depth, name = set(), 0, ""
    try:
        with Path(path).open("rb") as file:
            for event, value in ijson.basic_parse(file, use_float=True):
                if event in _OPENING:
                    if event == "start_array" and (depth == 0 or (depth == 1 and name)):
                        found.add(name)
                    depth += 1
                    if depth > _MAX_DEPTH:
                        raise DataError(f"nests more than {_MAX_DEPTH} deep", where=str(path))
                elif event in _CLOSING:
                    depth -= 1
                elif event == "map_key" and depth == 1:
                    name = value
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    except (ijson.JSONError, UnicodeDecodeError):
        pass
    return found


def integer(row: Any, name: str, where: str) -> int:
    """Member ``name`` of a record."""
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}", where=where)
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{name!r} must be an integer, not {value!r}", where=where)
    return value


def number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name!r} must be a finite number, not {value!r}", where=where)
    return float(value)


def shape(
    row: Any,
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
    ):
        raise DataError(f"malformed RLE: size {mask_size!r}", where=where)
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
