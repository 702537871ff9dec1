"""Shapes of detections and objects as columns: areas, boxes, and which of them overlap.

Masks are rasterised and compared by pycocotools' C code, boxes by the same formula in numpy, so
that every IoU is the one that COCOeval and LVISEval see, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_column, flags
from gcdis_ray.masks.coco_rle import coco_mask
from gcdis_ray.metrics.boxes import box_iou
from gcdis_ray.metrics.detection_matching import LEAST_IOU_T, Bools, Edges, Floats, Ints

_COCO = coco_mask()
_EDGES_AT_ONCE = 1 << 20
_RLES_AT_ONCE = 1 << 14
_MASKS_AT_ONCE = 255  # pycocotools' area counts them in a byte


@dataclass(frozen=True)
class Masks:
    """One mask or none a row.

    ``values`` is an Arrow column (``pa.ChunkedArray``) of compressed run lengths, or a list of
    these, of run lengths (lists of integers) and of polygons (lists of lists). ``size_N2`` is
    height and width in pixels.
    """

    values: Any
    size_N2: NDArray[np.integer]

    def missing(self) -> Bools:
        """(N,) rows without a mask."""
        if isinstance(self.values, pa.ChunkedArray):
            return flags(self.values.is_null())
        return np.array([value is None for value in self.values], dtype=np.bool_)

    def take(self, rows: Ints) -> Masks:
        """These rows."""
        if isinstance(self.values, pa.ChunkedArray):
            return Masks(self.values.take(as_column(rows)), self.size_N2[rows])
        return Masks([self.values[row] for row in rows.tolist()], self.size_N2[rows])

    def rles(self, rows: Ints) -> list[dict[str, Any]]:
        """Masks of these rows as pycocotools takes them. Each must have one."""
        taken = self.take(rows)
        sizes = taken.size_N2.tolist()
        if isinstance(taken.values, pa.ChunkedArray):
            texts = taken.values.to_pylist()
            return [{"size": s, "counts": text} for s, text in zip(sizes, texts, strict=True)]
        return [as_rle(value, size) for value, size in zip(taken.values, sizes, strict=True)]


def as_rle(value: Any, size: list[int]) -> dict[str, Any]:
    """A mask of any form as pycocotools takes it; ``size`` is (height, width) in pixels."""
    if isinstance(value, str | bytes):
        return {"size": size, "counts": value}
    if min(size) < 1:
        raise DataError("polygons need the image's height and width")
    if not len(value) or isinstance(value[0], int):
        return _COCO.frPyObjects({"size": size, "counts": value}, *size)
    return _COCO.merge(_COCO.frPyObjects(value, *size))


def mask_areas(masks: Masks, rows: Ints) -> Floats:
    """Set pixels of these masks."""
    rles, areas = masks.rles(rows), np.zeros(len(rows))
    for low in range(0, len(rles), _MASKS_AT_ONCE):
        part = slice(low, low + _MASKS_AT_ONCE)
        areas[part] = _COCO.area(rles[part])
    return areas


def tight_boxes(masks: Masks, rows: Ints) -> Floats:
    """(N, 4) x, y, width, height of these masks."""
    rles = masks.rles(rows)
    return np.asarray(_COCO.toBbox(rles)) if rles else np.zeros((0, 4))


@dataclass(frozen=True)
class Pairs:
    """Images and classes that hold both detections and objects: ranges of rows of each, sorted so
    that those of one image and class stand together."""

    first_d: Ints
    num_d: Ints
    first_g: Ints
    num_g: Ints

    def parts(self, size: Ints, limit: int) -> Iterator[Pairs]:
        """Runs of pairs whose ``size`` adds up to ``limit`` at most, or single ones."""
        total = np.cumsum(size)
        low = 0
        while low < len(total):
            done = total[low - 1] if low else 0
            high = max(low + 1, int(np.searchsorted(total, done + limit, side="right")))
            yield Pairs(
                *(x[low:high] for x in (self.first_d, self.num_d, self.first_g, self.num_g))
            )
            low = high


def ranges(first: Ints, num: Ints) -> Ints:
    """All rows of these ranges, one after another."""
    return np.repeat(first - (np.cumsum(num) - num), num) + np.arange(num.sum())


def mask_edges(detections: Masks, objects: Masks, crowd_G: Bools, pairs: Pairs) -> Edges:
    """Detections and objects of a pair with an IoU of at least 0.5, by masks."""
    parts = []
    for part in pairs.parts(pairs.num_d + pairs.num_g, _RLES_AT_ONCE):
        rows_d, rows_g = (
            ranges(part.first_d, part.num_d),
            ranges(part.first_g, part.num_g),
        )
        rles_d, rles_g = detections.rles(rows_d), objects.rles(rows_g)
        crowd = crowd_G[rows_g].tolist()
        d = g = 0
        for num_d, num_g in zip(part.num_d.tolist(), part.num_g.tolist(), strict=True):
            iou = _COCO.iou(rles_d[d : d + num_d], rles_g[g : g + num_g], crowd[g : g + num_g])
            row, column = np.nonzero(iou >= LEAST_IOU_T[0])
            if len(row):
                parts.append((rows_d[row + d], rows_g[column + g], iou[row, column]))
            d, g = d + num_d, g + num_g
    return _joined(parts)


def box_edges(detection_D4: Floats, object_G4: Floats, crowd_G: Bools, pairs: Pairs) -> Edges:
    """Detections and objects of a pair with an IoU of at least 0.5, by boxes (x, y, w, h)."""
    parts = []
    for part in pairs.parts(pairs.num_d * pairs.num_g, _EDGES_AT_ONCE):
        d, g = _products(part)
        iou = box_iou(detection_D4[d], object_G4[g], crowd_G[g])
        keep = iou >= LEAST_IOU_T[0]
        parts.append((d[keep], g[keep], iou[keep]))
    return _joined(parts)


def _products(pairs: Pairs) -> tuple[Ints, Ints]:
    """Every detection with every object of its pair."""
    size = pairs.num_d * pairs.num_g
    place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    row, column = np.divmod(place, np.repeat(pairs.num_g, size))
    return row + np.repeat(pairs.first_d, size), column + np.repeat(pairs.first_g, size)


def _joined(parts: list[tuple[Ints, Ints, Floats]]) -> Edges:
    if not parts:
        return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    detection, objects, iou = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Edges(detection, objects, iou)
