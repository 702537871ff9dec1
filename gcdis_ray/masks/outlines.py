"""Masks as polygons, for programs in which people correct outlines by hand.

Outlines run along the edges of pixels, so that a polygon drawn by COCO's rules is the mask again. A
hole is part of the polygon around it: a cut leads from the outer outline to the hole and back the
same way. The cut has no width; the hole's outline runs against the outer one. So the hole is open
whether a program fills by parity or by winding. Parts of a mask are joined by such cuts as well
where a format wants one polygon an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.masks.coco_rle import bbox_xyxy, decode_window, iou_matrix, rle_from_polygons

Polygon = NDArray[np.float64]  # (P, 2) x, y in pixels, closed by itself
_TOLERANCES_PX = (4.0, 2.0, 1.0, 0.71)  # of outlines, tried in turn; the last makes stairs slopes


@dataclass(frozen=True)
class Outlines:
    """A mask as polygons.

    Args:
        polygons: one for each part of the mask; parts that meet in a corner are one.
        iou: overlap in [0, 1] of the mask with what is drawn of them by COCO's rules.
    """

    polygons: list[Polygon]
    iou: float


def outlines_of(rle: str, height_px: int, width_px: int, *, min_iou: float = 1.0) -> Outlines:
    """The polygons of a mask that has a pixel, with as few points as keep so much of it.

    Args:
        min_iou: in [0, 1]. 1: the edges of its pixels.

    Source: S. Suzuki, K. Abe, Topological structural analysis of digitized binary images by border
    following, CVGIP 1985, and D. Douglas, T. Peucker, 1973, as OpenCV has them.
    """
    x0, y0, x1, y1 = map(int, bbox_xyxy(rle, height_px, width_px))
    window = decode_window(rle, height_px, width_px, (x0, y0, x1, y1))
    parts = [[ring + np.array([x0, y0]) for ring in part] for part in _rings(window)]
    for tolerance_px in _TOLERANCES_PX if min_iou < 1 else ():
        polygons = [one_polygon([_simpler(ring, tolerance_px) for ring in part]) for part in parts]
        if (iou := polygons_iou(polygons, rle, height_px, width_px)) >= min_iou:
            return Outlines(polygons, iou)
    polygons = [one_polygon(part) for part in parts]
    return Outlines(polygons, polygons_iou(polygons, rle, height_px, width_px))


def one_polygon(rings: Sequence[Polygon]) -> Polygon:
    """Parts of a mask, or an outline and those of its holes, as one polygon."""
    joined = rings[0]
    for ring in rings[1:]:
        joined = _joined(joined, ring)
    return joined


def box_polygon(box_xyxy: Sequence[float]) -> Polygon:
    """(4, 2)"""
    x0, y0, x1, y1 = box_xyxy
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def polygons_iou(polygons: Sequence[Polygon], rle: str, height_px: int, width_px: int) -> float:
    """Overlap in [0, 1] of a mask with polygons as COCO draws them: how much they kept of it."""
    flat = [polygon.ravel().tolist() for polygon in polygons]
    drawn = rle_from_polygons(flat, height_px, width_px)
    return float(iou_matrix([drawn], [rle], height_px, width_px)[0, 0])


def _rings(mask_hw: NDArray[np.bool_]) -> list[list[Polygon]]:
    """Of each part of a mask the outer outline, then those of its holes."""
    import cv2

    # Each pixel as four: of the two in a row, the first lies at its left edge, the second at its
    # right one, and likewise above and below.
    doubled = mask_hw.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_corners((ring[:, 0].astype(np.int64) + 1) // 2) for ring in found]
    around = tree[0][:, 3].tolist()  # number of the outline that a hole lies in, or -1
    parts = {number: [ring] for number, ring in enumerate(rings) if around[number] < 0}
    for number, ring in enumerate(rings):
        if around[number] >= 0:
            parts[around[number]].append(ring)
    return list(parts.values())


def _corners(ring: NDArray[np.int64]) -> Polygon:
    """Without points that repeat the one before, or lie on the way to the next."""
    ring = ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[turns].astype(np.float64)


def _simpler(ring: Polygon, tolerance_px: float) -> Polygon:
    """With fewer points, unless it would lose its extent."""
    import cv2

    found = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance_px, True)[:, 0]
    return found.astype(np.float64) if len(found) >= 3 else ring


def _joined(ring: Polygon, other: Polygon) -> Polygon:
    """Both rings as one, cut open where they are nearest."""
    from scipy.spatial import KDTree

    apart, nearest = KDTree(ring).query(other)
    there = int(np.argmin(apart))
    at, around = int(np.asarray(nearest)[there]), np.roll(other, -there, axis=0)
    return np.concatenate([ring[: at + 1], around, around[:1], ring[at:]])
