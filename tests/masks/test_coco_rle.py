"""Masks against plain NumPy bitmaps, and against pycocotools' own strings."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle


def coco_encode(bitmap: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))["counts"].decode()


@st.composite
def bitmaps(draw) -> np.ndarray:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    seed, density = draw(st.integers(0, 10**6)), draw(st.sampled_from([0, 0.02, 0.3, 0.8, 1]))
    return np.random.default_rng(seed).random((height, width)) < density


@given(bitmaps())
@examples(300)
@example(np.ones((1, 1), bool))
@example(np.zeros((1, 1), bool))
@example(np.pad(np.ones((3, 3), bool), 1))
def test_encode_decode_and_measures(bitmap: np.ndarray):
    height, width = bitmap.shape
    rle = coco_rle.encode(bitmap)
    assert rle == coco_encode(bitmap)
    assert (coco_rle.decode(rle, height, width) == bitmap).all()
    assert coco_rle.area(rle, height, width) == bitmap.sum()
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    box = (0, 0, 0, 0)
    if rows.size:
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert coco_rle.bbox_xyxy(rle, height, width) == box
    assert coco_rle.check_rle(rle, height, width) == rle
    counts = coco_rle.counts_from_rle(rle)
    assert coco_rle.rle_from_counts(counts.tolist(), height, width) == rle


@given(bitmaps(), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
@examples(300)
def test_windows(bitmap: np.ndarray, left: int, right: int, above: int, below: int):
    full = np.pad(bitmap, ((above, below), (left, right)))
    height, width = full.shape
    rle = coco_rle.encode_window(bitmap, left, above, height, width)
    assert rle == coco_encode(full)
    window = (left, above, left + bitmap.shape[1], above + bitmap.shape[0])
    assert (coco_rle.decode_window(rle, height, width, window) == bitmap).all()
    half = (left // 2, above // 2, width - right // 2, height - below // 2)
    x0, y0, x1, y1 = half
    assert (coco_rle.decode_window(rle, height, width, half) == full[y0:y1, x0:x1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_iou_matrix(seed: int):
    rng = np.random.default_rng(seed)
    bitmaps_a = rng.random((4, 9, 13)) < rng.choice([0, 0.2, 0.7])
    bitmaps_b = rng.random((5, 9, 13)) < 0.4
    crowd = (rng.random(5) < 0.4).tolist()
    a, b = [coco_rle.encode(m) for m in bitmaps_a], [coco_rle.encode(m) for m in bitmaps_b]
    want = np.zeros((4, 5))
    for i, one in enumerate(bitmaps_a):
        for j, other in enumerate(bitmaps_b):
            union = one.sum() if crowd[j] else (one | other).sum()
            want[i, j] = (one & other).sum() / union if union else 0
    np.testing.assert_allclose(coco_rle.iou_matrix(a, b, 9, 13, iscrowd=crowd), want, atol=1e-12)


def test_iou_of_nothing():
    empty = coco_rle.encode(np.zeros((4, 4)))
    assert coco_rle.iou_matrix([empty], [empty], 4, 4).tolist() == [[0]]
    assert coco_rle.iou_matrix([], [empty], 4, 4).shape == (0, 1)
    assert coco_rle.areas([], 4, 4).shape == (0,)


@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=60))
@examples(500)
def test_any_text_is_a_mask_or_an_error(text: str):
    try:
        coco_rle.check_rle(text, 7, 9)
    except DataError:
        return
    assert coco_rle.decode(text, 7, 9).sum() == coco_rle.area(text, 7, 9)


def test_windows_outside_are_refused():
    with pytest.raises(DataError, match="outside"):
        coco_rle.encode_window(np.ones((3, 3)), 8, 0, 10, 10)
    with pytest.raises(DataError, match="outside"):
        coco_rle.decode_window(coco_rle.encode(np.ones((5, 5))), 5, 5, (2, 2, 6, 5))
    with pytest.raises(DataError, match="size"):
        coco_rle.rle_from_polygons([[0, 0, 1, 0, 1, 1]], 2**20, 2**20)
