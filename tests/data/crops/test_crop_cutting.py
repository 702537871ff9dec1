"""Windows and outlines against slow, obvious versions."""

from __future__ import annotations

import math

import numpy as np
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.data.crops import crop_cutting
from gcdis_ray.masks import coco_rle

HEIGHT, WIDTH = 60, 80
BOXES = st.tuples(st.floats(0, 79), st.floats(0, 59), st.floats(0.1, 80), st.floats(0.1, 60))


@given(st.lists(BOXES, max_size=5), st.floats(0, 4))
@examples(300)
def test_windows_hold_the_box_and_its_margin_and_stay_inside(found: list, context: float):
    boxes = np.array(
        [(x, y, min(x + w, WIDTH), min(y + h, HEIGHT)) for x, y, w, h in found]
    ).reshape(-1, 4)
    sizes = np.tile((HEIGHT, WIDTH), (len(found), 1))
    windows = crop_cutting.crop_windows(boxes, context, sizes)
    assert windows.shape == boxes.shape
    for (x0, y0, x1, y1), window in zip(boxes.tolist(), windows.tolist(), strict=True):
        margin = context * max(x1 - x0, y1 - y0)
        assert window == [
            max(math.floor(x0 - margin), 0),
            max(math.floor(y0 - margin), 0),
            min(math.ceil(x1 + margin), WIDTH),
            min(math.ceil(y1 + margin), HEIGHT),
        ]


def test_outlines_of_images_of_several_sizes():
    rng = np.random.default_rng(0)
    sizes = np.array([(9, 30), (9, 30), (40, 7), (1, 1)])
    bitmaps = [rng.random(size) < 0.02 for size in sizes]
    for bitmap in bitmaps:
        bitmap.flat[-1] = True
    found = crop_cutting.outline_objects([coco_rle.encode(b) for b in bitmaps], sizes, context=0.1)
    for bitmap, outline in zip(bitmaps, found, strict=True):
        rows, columns = bitmap.any(1).nonzero()[0], bitmap.any(0).nonzero()[0]
        assert outline.bbox_xyxy == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        x0, y0, x1, y1 = outline.window_xyxy
        assert np.array_equal(outline.mask_hw, bitmap[y0:y1, x0:x1] * np.uint8(255))
    assert crop_cutting.outline_objects([], np.zeros((0, 2), np.int64), context=0.1) == []
