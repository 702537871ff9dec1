"""Masks of records: every form is read, everything else is named before C code sees it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gcdis_ray.masks import coco_rle
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.records.segmentations import Segmentation, as_rle, segmentation_of


def rle_of(segmentation: Any, height_px: int, width_px: int) -> str:
    found = segmentation_of({"segmentation": segmentation}, (height_px, width_px))
    if isinstance(found, Refused):
        raise found
    assert found is not None
    return as_rle(found)


def test_three_forms_agree():
    bitmap = np.zeros((12, 20), bool)
    bitmap[3:9, 5:15] = True
    want = coco_rle.encode(bitmap)
    polygon = [[5, 3, 15, 3, 15, 9, 5, 9]]
    runs = coco_rle.counts_from_rle(want).tolist()
    assert rle_of(polygon, 12, 20) == want
    assert rle_of({"size": [12, 20], "counts": runs}, 12, 20) == want
    assert rle_of({"size": [12, 20], "counts": want}, 12, 20) == want


SIZE = {"size": [12, 20]}


@pytest.mark.parametrize(
    ("segmentation", "reason", "words"),
    [
        ({"size": [20, 12], "counts": [240]}, Reason.RLE_SIZE, r"its size is \[20, 12\]"),
        ({"size": [12, 20.5], "counts": [240]}, Reason.RLE_FORM, "size 20.5 is not a whole"),
        ({"size": "12x20", "counts": [240]}, Reason.RLE_FORM, "'12x20' is not .height, width"),
        ({"size": [2**20, 2**20], "counts": [2**40]}, Reason.TOO_LARGE, "no mask can have"),
        ({"size": [2**70, 1], "counts": []}, Reason.RLE_FORM, "beyond 64 bits"),
        (SIZE | {"counts": [239]}, Reason.RLE_RUNS, "runs cover 239 pixels"),
        (SIZE | {"counts": [241]}, Reason.RLE_RUNS, "runs cover 241 pixels"),
        (SIZE | {"counts": []}, Reason.RLE_RUNS, "runs cover 0 pixels"),
        (SIZE | {"counts": [2**62] * 4 + [240]}, Reason.RLE_RUNS, "runs cover"),
        (SIZE | {"counts": [2**80]}, Reason.RLE_RUNS, "runs cover"),
        (SIZE | {"counts": [250, -10]}, Reason.RLE_RUNS, "negative run -10"),
        (SIZE | {"counts": [1.5, 238.5]}, Reason.RLE_RUNS, "run length 1.5 is not a whole number"),
        (SIZE | {"counts": [True, 239]}, Reason.RLE_RUNS, "run length True is not a whole"),
        (SIZE | {"counts": ["1", 239]}, Reason.RLE_RUNS, "run length '1' is a text"),
        (SIZE | {"counts": [[240]]}, Reason.RLE_RUNS, "is not a whole number"),
        (SIZE | {"counts": "é"}, Reason.RLE_RUNS, "foreign character"),
        (SIZE | {"counts": "a b"}, Reason.RLE_RUNS, "foreign character"),
        (SIZE | {"counts": "0P"}, Reason.RLE_RUNS, "ends inside a number"),
        (SIZE | {"counts": "oooooooooo0"}, Reason.RLE_RUNS, "beyond 32 bits"),
        (SIZE | {"counts": "1O"}, Reason.RLE_RUNS, "negative run"),
        (SIZE | {"counts": ""}, Reason.RLE_RUNS, "runs cover 0 pixels"),
        (SIZE | {"counts": 240}, Reason.RLE_FORM, "counts 240 are neither a text nor a list"),
        (SIZE, Reason.RLE_FORM, "without counts"),
        ({"counts": [240]}, Reason.RLE_FORM, "without size"),
        ([[1, 1, 50, 1, 50, 8, 1, 8]], Reason.MASK_OUTSIDE, "polygon spans x 1..50"),
        ([[-9, 1, 5, 1, 5, 8]], Reason.MASK_OUTSIDE, "polygon spans x -9..5"),
        ([[1, 1, 1e300, 1, 5, 8]], Reason.POLYGON_TOO_FAR, r"a coordinate of 1e\+300"),
        ([[1, 1, 4e9, 1, 5, 8]], Reason.POLYGON_TOO_FAR, r"a coordinate of 4e\+09"),
        ([[1, 1, -4e9, 1, 5, 8]], Reason.POLYGON_TOO_FAR, r"a coordinate of 4e\+09"),
        ([[1, 1, 10**400, 1, 5, 8]], Reason.POLYGON_TOO_FAR, "a coordinate of inf"),
        ([[0, 0, 1e6, 1e6, 0, 5] * 2], Reason.POLYGON_TOO_LONG, "outline is longer than 2097152"),
        ([[1, 1, float("nan"), 1, 5, 8]], Reason.POLYGON_FORM, "NaN"),
        ([1, 1, 5, 1, 5, 8], Reason.POLYGON_FORM, r"is a polygon itself: write \[\[x, y"),
        ([[1, 1, 5, 1, 5]], Reason.POLYGON_FORM, "one is left over"),
        ([[[1, 1], [5, 1], [5, 8]]], Reason.POLYGON_FORM, "must be a flat list"),
        ([["a", 1, 5, 1, 5, 8]], Reason.POLYGON_FORM, "'a' is no number"),
        ([[None, 1, 5, 1, 5, 8]], Reason.POLYGON_FORM, "None is no number"),
        ([[True, 1, 5, 1, 5, 8]], Reason.POLYGON_FORM, "True is no number"),
        (["a"], Reason.POLYGON_FORM, "'a' is no list of numbers"),
        ([{"size": [1, 2]}], Reason.POLYGON_FORM, "is no list of numbers"),
        ([[1, 1, 5, 1]], Reason.MASK_NONE, "no polygon with three or more points"),
        ([[]], Reason.MASK_NONE, "no polygon with three or more points"),
        ("polygon", Reason.MASK_KIND, "'polygon' is neither polygons nor run lengths"),
        (7, Reason.MASK_KIND, "7 is neither polygons nor run lengths"),
    ],
)  # fmt: skip
def test_bad_segmentations_are_named(segmentation: Any, reason: Reason, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        rle_of(segmentation, 12, 20)
    assert caught.value.reason == reason
    assert len(caught.value.what) < 200


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_what_says_nothing_is_no_mask(nothing: Any) -> None:
    assert segmentation_of({"segmentation": nothing}, (12, 20)) is None
    assert segmentation_of({}, (12, 20)) is None


def test_polygons_that_cover_nothing_are_passed_over() -> None:
    square = [5, 3, 15, 3, 15, 9, 5, 9]
    assert rle_of([[], square, [1, 1, 5, 1]], 12, 20) == rle_of([square], 12, 20)


def test_many_short_outlines_are_no_long_one() -> None:
    dot = [0, 0, 900, 0, 900, 1, *[900, 1] * 20, 0, 1]
    found = segmentation_of({"segmentation": [dot] * 100}, (1000, 1000))
    assert isinstance(found, Segmentation)


def test_whole_floats_are_integers() -> None:
    want = rle_of({"size": [12, 20], "counts": [30, 10, 200]}, 12, 20)
    assert rle_of({"size": [12.0, 20.0], "counts": [30.0, 10, 200.0]}, 12, 20) == want
    assert rle_of({"size": [12.0, 20], "counts": want}, 12, 20) == want


def test_a_mask_of_an_image_of_unknown_size() -> None:
    found = segmentation_of({"segmentation": {"size": [3, 4], "counts": [5, 7]}}, None)
    assert isinstance(found, Segmentation)
    assert found.size == (3, 4)
    with pytest.raises(Refused, match="polygons need the image's height") as caught:
        segmentation_of({"segmentation": [[0, 0, 4, 0, 4, 4]]}, None)
    assert caught.value.reason == Reason.NO_SIZE


def test_polygon_out_by_a_rounding_error_is_clipped():
    rle = rle_of([[-1, -1, 21, -1, 21, 13, -1, 13]], 12, 20)
    assert coco_rle.area(rle, 12, 20) == 240


@pytest.mark.parametrize("name", ["coco-subset", "lvis-sample", "voc2007-seg"])
def test_real_annotations_equal_pycocotools(shared_data, name: str):
    data = json.loads((shared_data / name / "instances.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    for annotation in data["annotations"]:
        height, width = sizes[annotation["image_id"]]
        segmentation = annotation["segmentation"]
        want = segmentation
        if isinstance(segmentation, list):
            want = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            want = coco_mask.frPyObjects(segmentation, height, width)
        counts = want["counts"]
        counts = counts if isinstance(counts, str) else counts.decode()
        assert rle_of(segmentation, height, width) == counts
