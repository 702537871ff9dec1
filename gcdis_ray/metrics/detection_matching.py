"""Greedy matching of detections to true objects, all images and classes at once.

Plain numpy on a list of overlapping pairs; where overlaps come from is none of its business. The
rules are COCO's, which LVIS shares: in the order of falling score a detection takes the free object
of highest IoU, one that counts before one that is ignored.

Shape letters: D detections, G objects, E edges (a detection and an object that overlap), A area
ranges, T IoU thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.lookup import rank_in_group

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

IOU_T: Floats = np.linspace(0.5, 0.95, 10)
LEAST_IOU_T: Floats = np.minimum(IOU_T, 1 - 1e-10)
AREAS = ("all", "small", "medium", "large")
AREA_RANGES_PX: Floats = np.array(
    [[0, 1e10], [0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]], dtype=np.float64
)
NUM_BITS = len(AREAS) * len(IOU_T)  # of a packed flag: bit a * T + t
_BIT_AT = np.int64(1) << np.arange(NUM_BITS, dtype=np.int64).reshape(len(AREAS), len(IOU_T))
_AREA_BITS = _BIT_AT.sum(axis=1)


def outside_areas(area_px: NDArray[np.floating]) -> Bools:
    """Which areas lie outside each range: (N,) in pixels -> (A, N)."""
    low, high = AREA_RANGES_PX[:, :1], AREA_RANGES_PX[:, 1:]
    return (area_px[None, :] < low) | (area_px[None, :] > high)


@dataclass(frozen=True)
class Edges:
    """Detections and objects of the same image and class whose IoU reaches the first threshold."""

    detection_E: Ints
    object_E: Ints
    iou_E: Floats


def match(
    edges: Edges, pair_D: Ints, ignored_AG: Bools, crowd_G: Bools, outside_AD: Bools
) -> tuple[Ints, Ints]:
    """Match every image and class at every threshold and area range.

    Args:
        edges: of detections and objects by position.
        pair_D: number of the image and class each detection is of; equal ones stand together, by
            falling score.
        ignored_AG: objects that neither help nor hurt (crowd, other size).
        crowd_G: objects that stand for a group, and can be taken again and again.
        outside_AD: detections that are ignored when unmatched.

    Returns:
        matched_D and ignored_D: one bit for each range and threshold, at ``a * T + t``.
    """
    matched_D = np.zeros(len(pair_D), dtype=np.int64)
    ignored_D = np.zeros_like(matched_D)
    free_ATG = np.ones((len(AREAS), len(IOU_T), len(crowd_G)), dtype=np.bool_)
    turn_E = _turns(edges.detection_E, pair_D)
    # the last of a detection's edges is the best; of equal ones that of the later object
    order = np.lexsort((edges.object_E, edges.iou_E, edges.detection_E, turn_E))
    bounds = np.searchsorted(turn_E[order], np.arange(turn_E.max(initial=-1) + 2))
    for low, high in pairwise(bounds.tolist()):
        e = order[low:high]
        num_e, objects = len(e), edges.object_E[e]
        fits = free_ATG[:, :, objects] & (edges.iou_E[e] >= LEAST_IOU_T[:, None])
        value_AE = np.arange(num_e) + num_e * ~ignored_AG[:, objects]
        value = np.where(fits, value_AE[:, None, :], -1)
        detections, starts = np.unique(edges.detection_E[e], return_index=True)
        best = np.maximum.reduceat(value, starts, axis=2)
        found = best >= 0
        taken = objects[best % num_e]
        matched_D[detections] = _packed(found)
        ignored_D[detections] = _packed(found & (best < num_e))
        a, t, d = np.nonzero(found & ~crowd_G[taken])
        free_ATG[a, t, taken[a, t, d]] = False
    return matched_D, ignored_D | (~matched_D & (_AREA_BITS @ outside_AD))


def _turns(detection_E: Ints, pair_D: Ints) -> Ints:
    """How many detections of its image and class, with edges, come before that of each edge."""
    detections, of_edge = np.unique(detection_E, return_inverse=True)
    return rank_in_group(pair_D[detections])[of_edge]


def _packed(flags_ATD: Bools) -> Ints:
    return np.tensordot(_BIT_AT, flags_ATD.astype(np.int64), axes=([0, 1], [0, 1]))
