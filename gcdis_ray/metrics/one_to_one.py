"""Greedy one-to-one pairs of what was found and what is there: which object a crop shows.

Any category goes with any; the matching that average precision is computed from, within classes and
at many thresholds, is another: :mod:`gcdis_ray.metrics.detection_matching`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.metrics.detection_matching import Edges


def greedy_edges(edges: Edges) -> Edges:
    """One-to-one pairs by falling IoU, the highest first; ties by the lowest detection, then the
    lowest object.

    In rounds: an edge that comes first for its detection and for its object is taken.
    """
    order = np.lexsort((edges.object_E, edges.detection_E, -edges.iou_E))
    detection, object_ = edges.detection_E[order], edges.object_E[order]
    left, taken = np.arange(len(order)), np.zeros(len(order), np.bool_)
    while len(left):
        d, g = detection[left], object_[left]
        first_d, first_g = (np.unique(c, return_index=True)[1] for c in (d, g))
        chosen = np.intersect1d(first_d, first_g)
        taken[left[chosen]] = True
        left = left[~(np.isin(d, d[chosen]) | np.isin(g, g[chosen]))]
    rows = order[taken]
    return Edges(edges.detection_E[rows], edges.object_E[rows], edges.iou_E[rows])


def greedy_pairs(iou_PG: NDArray[np.floating], threshold: float) -> list[tuple[int, int, float]]:
    """:func:`greedy_edges` of all pairs of at least ``threshold``.

    Returns:
        (row, column, iou), highest IoU first.
    """
    row, column = np.nonzero(iou_PG >= threshold)
    found = greedy_edges(Edges(row, column, iou_PG[row, column].astype(np.float64)))
    columns = (found.detection_E, found.object_E, found.iou_E)
    return list(zip(*(c.tolist() for c in columns), strict=True))
