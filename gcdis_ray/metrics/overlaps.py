"""Shapes of detections and objects as columns: areas, boxes, and which of them overlap.

Masks are rasterised and compared by pycocotools' C code, boxes by the same formula in numpy, so
that every IoU is the one that COCOeval and LVISEval see, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.ap_matching import LEAST_IOU_T, Bools, Edges, Floats, Ints

coco_mask: Any = mask  # its annotations are narrower than what it takes
_EDGES_AT_ONCE = 1 << 20
_MASKS_AT_ONCE = 255  # pycocotools' area counts them in a byte


@dataclass(frozen=True)
class Masks:
    """One mask or none a row.

    ``values`` holds compressed run lengths (text), run lengths (a list of integers) or polygons (a
    list of lists), or null; as an Arrow column (``pa.ChunkedArray``) or a list. ``size_N2`` is
    height and width in pixels.
    """

    values: Any
    size_N2: NDArray[np.integer]

    def missing(self) -> Bools:
        """(N,) rows without a mask."""
        if isinstance(self.values, pa.ChunkedArray):
            return self.values.is_null().to_numpy()
        return np.array([value is None for value in self.values], dtype=np.bool_)

    def take(self, rows: Ints) -> Masks:
        """These rows."""
        if isinstance(self.values, pa.ChunkedArray):
            return Masks(self.values.take(pa.array(rows)), self.size_N2[rows])
        return Masks([self.values[row] for row in rows.tolist()], self.size_N2[rows])

    def rles(self, rows: Ints) -> list[dict[str, Any]]:
        """Masks of these rows as pycocotools takes them. Each must have one."""
        taken = self.take(rows)
        values = (
            taken.values.to_pylist() if isinstance(taken.values, pa.ChunkedArray) else taken.values
        )
        sizes = taken.size_N2.tolist()
        return [as_rle(value, size) for value, size in zip(values, sizes, strict=True)]


def as_rle(value: Any, size: list[int]) -> dict[str, Any]:
    """A mask of any form as pycocotools takes it; ``size`` is (height, width) in pixels."""
    if isinstance(value, str | bytes):
        return {"size": size, "counts": value}
    if min(size) < 1:
        raise DataError("polygons need the image's height and width")
    if not len(value) or isinstance(value[0], int):
        return coco_mask.frPyObjects({"size": size, "counts": value}, *size)
    return coco_mask.merge(coco_mask.frPyObjects(value, *size))


def mask_areas(masks: Masks, rows: Ints) -> Floats:
    """Set pixels of these masks."""
    return rle_areas(masks.rles(rows))


def rle_areas(rles: Sequence[dict[str, Any] | None]) -> Floats:
    """Set pixels, NaN where there is no mask."""
    there = [n for n, rle in enumerate(rles) if rle is not None]
    found = np.full(len(rles), np.nan)
    for low in range(0, len(there), _MASKS_AT_ONCE):
        part = there[low : low + _MASKS_AT_ONCE]
        found[part] = coco_mask.area([rles[n] for n in part])
    return found


def tight_boxes(masks: Masks, rows: Ints) -> Floats:
    """(N, 4) x, y, width, height of these masks."""
    rles = masks.rles(rows)
    return np.asarray(coco_mask.toBbox(rles)) if rles else np.zeros((0, 4))


@dataclass(frozen=True)
class Pairs:
    """Images and classes that hold both detections and objects: ranges of rows of each, sorted so
    that those of one image and class stand together."""

    first_d: Ints
    num_d: Ints
    first_g: Ints
    num_g: Ints


def mask_edges(detections: Masks, objects: Masks, crowd_G: Bools, pairs: Pairs) -> Edges:
    """Detections and objects of a pair with an IoU of at least 0.5, by masks."""
    parts = []
    crowd = crowd_G.astype(np.uint8)
    for first_d, num_d, first_g, num_g in zip(
        *(x.tolist() for x in (pairs.first_d, pairs.num_d, pairs.first_g, pairs.num_g)),
        strict=True,
    ):
        d, g = np.arange(first_d, first_d + num_d), np.arange(first_g, first_g + num_g)
        iou = np.asarray(
            coco_mask.iou(
                detections.rles(d), objects.rles(g), crowd[first_g : first_g + num_g].tolist()
            )
        )
        row, column = np.nonzero(iou >= LEAST_IOU_T[0])
        if len(row):
            parts.append((row + first_d, column + first_g, iou[row, column]))
    return _joined(parts)


def box_edges(detection_D4: Floats, object_G4: Floats, crowd_G: Bools, pairs: Pairs) -> Edges:
    """Detections and objects of a pair with an IoU of at least 0.5, by boxes (x, y, w, h)."""
    parts = []
    sizes = np.cumsum(pairs.num_d * pairs.num_g)
    low = 0
    while low < len(sizes):
        done = sizes[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(sizes, done + _EDGES_AT_ONCE, side="right")))
        d, g = _products(pairs, slice(low, high))
        iou = _box_iou(detection_D4[d], object_G4[g], crowd_G[g])
        keep = iou >= LEAST_IOU_T[0]
        parts.append((d[keep], g[keep], iou[keep]))
        low = high
    return _joined(parts)


def _products(pairs: Pairs, part: slice) -> tuple[Ints, Ints]:
    """Every detection with every object of its pair."""
    num_d, num_g = pairs.num_d[part], pairs.num_g[part]
    size = num_d * num_g
    place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    row, column = np.divmod(place, np.repeat(num_g, size))
    return row + np.repeat(pairs.first_d[part], size), column + np.repeat(pairs.first_g[part], size)


def _box_iou(left_E4: Floats, right_E4: Floats, crowd_E: Bools) -> Floats:
    """IoU of rows; of a crowd object the share of the detection that it covers."""
    low = np.maximum(left_E4[:, :2], right_E4[:, :2])
    high = np.minimum(left_E4[:, 2:] + left_E4[:, :2], right_E4[:, 2:] + right_E4[:, :2])
    side = high - low
    both = side[:, 0] * side[:, 1]
    area = left_E4[:, 2] * left_E4[:, 3]
    union = np.where(crowd_E, area, area + right_E4[:, 2] * right_E4[:, 3] - both)
    return np.divide(both, union, out=np.zeros(len(both)), where=(side > 0).all(axis=1))


def _joined(parts: list[tuple[Ints, Ints, Floats]]) -> Edges:
    if not parts:
        return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    detection, objects, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Edges(detection, objects, iou)
