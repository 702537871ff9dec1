"""Overlap of boxes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gcdis_ray.metrics.boxes import box_iou, box_iou_matrix


def test_every_box_with_every_other() -> None:
    left = np.array([[0, 0, 2, 2], [5, 5, 5, 5]])
    right = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [9, 9, 10, 10]])
    assert box_iou_matrix(left, right) == pytest.approx(np.array([[1 / 7, 1, 0], [0, 0, 0]]))
    assert box_iou_matrix(np.zeros((0, 4)), right).shape == (0, 3)
    assert box_iou_matrix(left, np.zeros((0, 4))).shape == (2, 0)


def test_a_crowd_is_not_asked_for_its_own_area() -> None:
    box, crowd = np.array([[0.0, 0, 2, 2]] * 2), np.array([[1.0, 0, 9, 9]] * 2)
    assert box_iou(box, crowd, np.array([True, False])).tolist() == [0.5, 2 / 83]
