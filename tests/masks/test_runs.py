"""Many masks at once against bitmaps, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.masks.runs import MaskRuns, read_counts


@st.composite
def some_bitmaps(draw) -> list[np.ndarray]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return [rng.random(shape) < rng.choice([0, 0.02, 0.3, 0.8, 1]) for shape in shapes]


def runs_of(bitmaps: list[np.ndarray]) -> MaskRuns:
    sizes = np.array([b.shape for b in bitmaps], np.int64).reshape(-1, 2)
    return MaskRuns.read([coco_rle.encode(b) for b in bitmaps], sizes[:, 0], sizes[:, 1])


def slow_counts(rle: str) -> list[int]:
    """As pycocotools reads a string, number by number."""
    counts: list[int] = []
    digits = [ord(letter) - 48 for letter in rle]
    while digits:
        value = place = 0
        more = True
        while more:
            digit = digits.pop(0)
            value |= (digit & 31) << (5 * place)
            place, more = place + 1, bool(digit & 32)
        value -= bool(digit & 16) << (5 * place)
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


@given(some_bitmaps(), st.integers(0, 6))
@examples(200)
def test_counts_are_those_of_each_string_alone(bitmaps: list[np.ndarray], empty: int):
    rles = [coco_rle.encode(bitmap) for bitmap in bitmaps]
    rles.insert(empty, "")
    counts = read_counts(rles)
    each = [slow_counts(rle) for rle in rles]
    assert counts.lengths.tolist() == [run for runs in each for run in runs]
    assert counts.sizes.tolist() == [len(runs) for runs in each]
    assert counts.mask.tolist() == [n for n, runs in enumerate(each) for _ in runs]
    assert counts.is_one.tolist() == [place % 2 == 1 for runs in each for place in range(len(runs))]


def test_a_number_cut_off_is_not_joined_with_the_next_string():
    with pytest.raises(DataError, match="ends inside a number"):
        read_counts(["P", "0"])  # "P0" would be one number


@given(some_bitmaps())
@examples(200)
def test_boxes_are_tight(bitmaps: list[np.ndarray]):
    boxes = runs_of(bitmaps).boxes_xyxy()
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [
        list(coco_rle.bbox_xyxy(coco_rle.encode(bitmap), *bitmap.shape)) for bitmap in bitmaps
    ]


def test_empty_runs_do_not_count():
    rle = coco_rle.rle_from_counts([4, 2, 3, 0, 3], 3, 4)
    runs = MaskRuns.read([rle], np.array([3]), np.array([4]))
    assert runs.starts.tolist() == [4]
    assert runs.boxes_xyxy().tolist() == [[1, 1, 2, 3]]


@given(some_bitmaps(), st.data())
@examples(300)
def test_each_is_painted_in_its_window(bitmaps: list[np.ndarray], data: st.DataObject):
    windows = []
    for height, width in (bitmap.shape for bitmap in bitmaps):
        xs = sorted(data.draw(st.integers(0, width)) for _ in range(2))
        ys = sorted(data.draw(st.integers(0, height)) for _ in range(2))
        windows.append((xs[0], ys[0], xs[1], ys[1]))
    painted = runs_of(bitmaps).paint(np.array(windows, np.int64).reshape(-1, 4), value=255)
    for bitmap, (x0, y0, x1, y1), got in zip(bitmaps, windows, painted, strict=True):
        assert got.dtype == np.uint8
        assert np.array_equal(got, bitmap[y0:y1, x0:x1] * np.uint8(255))


@pytest.mark.parametrize("rles", [[""], ["", "<"], ["<0", ""], ["8"], ["05", "<0"]])
def test_masks_of_another_size_are_refused(rles: list[str]):
    """A mask of 3 x 4 pixels is "<" (12 zeros)."""
    with pytest.raises(DataError, match="outside the image"):
        MaskRuns.read(rles, np.full(len(rles), 3), np.full(len(rles), 4))


def test_windows_outside_are_refused():
    runs = runs_of([np.ones((5, 5), bool)] * 2)
    with pytest.raises(DataError, match=r"window \(2, 2, 6, 5\) outside"):
        runs.paint(np.array([(0, 0, 5, 5), (2, 2, 6, 5)]))
