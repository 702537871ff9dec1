"""What records say in odd ways is read where its meaning is certain, else named for what it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gcdis_ray.records.annotations import annotation_of, detection_of, image_id_of
from gcdis_ray.records.boxes import inside
from gcdis_ray.records.fields import class_name, flag, image_size, whole
from gcdis_ray.records.reasons import Reason, Refused

GOOD = {"id": 5, "image_id": 1, "category_id": 2, "bbox": [3, 4, 10, 10], "score": 0.5}


@pytest.mark.parametrize(
    ("written", "number"),
    [(7, 7), (7.0, 7), (0, 0), (-0.0, 0), (2**53 + 1, 2**53 + 1), (2**63 - 1, 2**63 - 1)],
)
def test_whole_numbers(written: Any, number: int) -> None:
    assert whole({"id": written}, "id") == number


@pytest.mark.parametrize(
    ("written", "reason", "words"),
    [
        (None, Reason.MISSING, "no 'id'"),
        ("7", Reason.TEXT, "id '7' is a text, not a whole number"),
        ("x" * 500, Reason.TEXT, "is a text"),
        (1.5, Reason.NOT_WHOLE, "id 1.5 is not a whole number"),
        (float("inf"), Reason.NOT_WHOLE, "id inf is not a whole number"),
        (-1, Reason.NEGATIVE, "id -1 is negative"),
        (-2.0, Reason.NEGATIVE, "id -2.0 is negative"),
        (2**63, Reason.TOO_LARGE, "is a whole number beyond 64 bits"),
        (2**64 - 1, Reason.TOO_LARGE, "is a whole number beyond 64 bits"),
        (9007199254740993.0, Reason.TOO_LARGE, "a decimal number beyond 2.53"),
        (1e300, Reason.TOO_LARGE, "a decimal number beyond"),
        (True, Reason.NO_NUMBER, "id True is not a whole number"),
        ([7], Reason.NO_NUMBER, r"id \[7\] is not a whole number"),
        ({}, Reason.NO_NUMBER, "id {} is not a whole number"),
    ],
)
def test_what_is_no_whole_number(written: Any, reason: Reason, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        whole({"id": written}, "id", "here")
    assert caught.value.reason == reason
    assert str(caught.value).startswith("here: ")
    assert len(caught.value.what) < 160


@pytest.mark.parametrize(
    ("written", "told"),
    [(None, False), (0, False), (1, True), (False, False), (True, True), (1.0, True)],
)
def test_flags(written: Any, told: bool) -> None:
    assert flag({"iscrowd": written}, "iscrowd") is told
    assert flag({}, "iscrowd") is False


@pytest.mark.parametrize(
    ("written", "reason"),
    [("0", Reason.TEXT), ("", Reason.TEXT), (2, Reason.FLAG), ([1], Reason.FLAG)],
)
def test_what_is_no_flag(written: Any, reason: Reason) -> None:
    with pytest.raises(Refused, match="iscrowd") as caught:
        flag({"iscrowd": written}, "iscrowd")
    assert caught.value.reason == reason


def test_sizes_and_names() -> None:
    assert image_size({"height": 30.0, "width": 40}, "here") == (30, 40)
    for height, reason in [(0, Reason.NO_SIZE), (1e7, Reason.TOO_LARGE), (3.5, Reason.NOT_WHOLE)]:
        with pytest.raises(Refused) as caught:
            image_size({"height": height, "width": 40}, "here")
        assert caught.value.reason == reason
    for written, name in [("cat", "cat"), (7, "7"), (7.0, "7"), (None, None), ("", None)]:
        assert class_name({"name": written}, "here") == name
    with pytest.raises(Refused, match=r"name \['cat'\] is neither a text nor a whole number"):
        class_name({"name": ["cat"]}, "here")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "5"}, Reason.TEXT),
        ({"category_id": 3}, Reason.NO_CATEGORY),
        ({"bbox": [1, 2, 3]}, Reason.BOX_FORM),
        ({"bbox": [1, 2, 3, "4"]}, Reason.BOX_FORM),
        ({"bbox": [1, 2, 3, 10**400]}, Reason.BOX_FORM),
        ({"bbox": {"x": 1}}, Reason.BOX_FORM),
        ({"bbox": [1, 2, -3, 4]}, Reason.BOX_NEGATIVE),
        ({"bbox": [1, 2, 3, 1e10]}, Reason.BOX_TOO_FAR),
        ({"bbox": []}, Reason.NO_SHAPE),
        ({"bbox": None, "segmentation": [[]]}, Reason.MASK_NONE),
        ({"area": "5"}, Reason.TEXT),
        ({"area": -5}, Reason.NEGATIVE),
        ({"area": True}, Reason.NO_NUMBER),
        ({"iscrowd": "0"}, Reason.TEXT),
        ({"ignore": 7}, Reason.FLAG),
    ],
)
def test_annotations_that_are_refused(change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        annotation_of(GOOD | change, (30, 40), {2})
    assert caught.value.reason == reason


def test_images_and_scores() -> None:
    assert image_id_of({"image_id": 1.0}, {1}) == 1
    for value, reason in [(2, Reason.NO_IMAGE), ("1", Reason.TEXT), (None, Reason.MISSING)]:
        with pytest.raises(Refused) as caught:
            image_id_of({"image_id": value}, {1})
        assert caught.value.reason == reason
    assert detection_of(GOOD, (30, 40), None).score == 0.5
    for value, reason in [("1", Reason.TEXT), (None, Reason.MISSING), ([], Reason.NO_NUMBER)]:
        with pytest.raises(Refused) as caught:
            detection_of(GOOD | {"score": value}, (30, 40), None)
        assert caught.value.reason == reason


def test_a_mask_that_says_nothing_leaves_the_box() -> None:
    shape = annotation_of(GOOD | {"segmentation": [[1, 2, 3, 4]]}, (30, 40), None).shape
    assert (shape.box, shape.mask) == ((3, 4, 10, 10), None)
    assert shape.mask_fault is not None
    assert shape.mask_fault.reason == Reason.MASK_NONE


def test_boxes_inside() -> None:
    assert inside((-1, 2, 42.5, 10), 30, 40) == (0, 2, 40, 12)
    for box, reason in [((1, 2, 0, 5), Reason.BOX_EMPTY), ((1, 2, 50, 5), Reason.BOX_OUTSIDE)]:
        with pytest.raises(Refused) as caught:
            inside(box, 30, 40)
        assert caught.value.reason == reason


def test_refusals_travel() -> None:
    refused = copy.copy(Refused("odd", reason=Reason.FLAG, fix="mend it").at("here"))  # as pickled
    assert (refused.reason, str(refused)) == (Reason.FLAG, "here: odd\n  next: mend it")
