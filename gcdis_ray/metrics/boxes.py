"""How much boxes overlap: the formula of COCOeval and LVISEval, to the last bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def box_iou(left_E4: Floats, right_E4: Floats, crowd_E: NDArray[np.bool_]) -> Floats:
    """IoU of rows of boxes (x, y, width, height) in pixels, (E,); 0 where they do not meet.

    Args:
        crowd_E: for a crowd on the right, the share of the left box that it covers.
    """
    low = np.maximum(left_E4[:, :2], right_E4[:, :2])
    high = np.minimum(left_E4[:, 2:] + left_E4[:, :2], right_E4[:, 2:] + right_E4[:, :2])
    side = high - low
    both = side[:, 0] * side[:, 1]
    area = left_E4[:, 2] * left_E4[:, 3]
    union = np.where(crowd_E, area, area + right_E4[:, 2] * right_E4[:, 3] - both)
    return np.divide(both, union, out=np.zeros(len(both)), where=(side > 0).all(axis=1))


def box_iou_matrix(left_P4: NDArray[np.floating], right_G4: NDArray[np.floating]) -> Floats:
    """IoU of every box with every other: (P, 4), (G, 4) of (x0, y0, x1, y1) in pixels -> (P, G)."""
    left, right = (np.array(b, dtype=np.float64).reshape(-1, 4) for b in (left_P4, right_G4))
    left[:, 2:] -= left[:, :2]
    right[:, 2:] -= right[:, :2]
    row, column = np.indices((len(left), len(right))).reshape(2, -1)
    iou = box_iou(left[row], right[column], np.zeros(len(row), np.bool_))
    return iou.reshape(len(left), len(right))
