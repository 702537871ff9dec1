"""Outlines of masks: exact ones, simpler ones, holes and parts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gcdis_ray.masks.coco_rle import encode
from gcdis_ray.masks.outlines import Polygon, box_polygon, one_polygon, outlines_of, polygons_iou


def signed_area(polygon: Polygon) -> float:
    """By winding: what a hole that is traced against its outline takes away."""
    x, y = polygon.T
    return float(y @ np.roll(x, -1) - x @ np.roll(y, -1)) / 2


def random_masks(number: int, smooth: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    masks = []
    while len(masks) < number:
        noise = rng.random(rng.integers(1, 40, 2)) < rng.choice([0.1, 0.5, 0.9])
        if smooth:
            noise = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 1.5) > 0.5
        if noise.any():
            masks.append(noise)
    return masks


@pytest.mark.parametrize("smooth", [False, True])
def test_exact_outlines_are_the_mask_by_parity_and_by_winding(smooth: bool):
    for mask in random_masks(100, smooth):
        size, rle = mask.shape, encode(mask)
        found = outlines_of(rle, *size)
        assert found.iou == 1
        assert sum(map(signed_area, found.polygons)) == mask.sum()
        joined = one_polygon(found.polygons)
        assert polygons_iou([joined], rle, *size) == 1
        assert signed_area(joined) == mask.sum()


def test_simpler_outlines_have_fewer_points_and_keep_what_is_asked():
    for mask in random_masks(60, smooth=True):
        exact = outlines_of(encode(mask), *mask.shape)
        simpler = outlines_of(encode(mask), *mask.shape, min_iou=0.9)
        assert simpler.iou >= 0.9
        assert sum(map(len, simpler.polygons)) <= sum(map(len, exact.polygons))
        assert polygons_iou(simpler.polygons, encode(mask), *mask.shape) == simpler.iou
    yy, xx = np.mgrid[:200, :200]
    disk = encode((yy - 100) ** 2 + (xx - 100) ** 2 < 80**2)
    (polygon,) = outlines_of(disk, 200, 200, min_iou=0.95).polygons
    assert len(polygon) < 30


def test_one_polygon_a_part_and_a_cut_to_each_hole():
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:12] = mask[12:18, 20:29] = True
    mask[4:6, 5:8] = False
    found = outlines_of(encode(mask), *mask.shape).polygons
    assert sorted(map(len, found)) == [4, 10]  # a corner twice at either end of the cut


def test_a_box_is_a_polygon():
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:12] = True
    assert polygons_iou([box_polygon((3, 2, 12, 9))], encode(mask), 20, 30) == 1
