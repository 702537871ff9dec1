"""Ingest, external masks and bare files judge the same record alike, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from coco_folder import HEIGHT, WIDTH, square
from hypothesis import given, settings
from hypothesis import strategies as st
from record_child import MOST_BYTES, Child
from record_readers import small_results, small_truth

from gcdis_ray.data.formats.coco import parse_annotation
from gcdis_ray.instances.external_masks import _proposal
from gcdis_ray.records.annotations import annotation_of, detection_of, image_id_of
from gcdis_ray.records.reasons import SCORED_ANYWAY, Reason, Refused
from gcdis_ray.words import shown

MOST_EXAMPLES = 20_000
ANNOTATION = small_truth()["annotations"][0]
DETECTION = small_results()[0]
NUMBERS = (
    st.integers(-3, 50)
    | st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 1.0, 1.5, -1.0, 1e300, 4e9, 1e7])
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=4)
POLYGONS = st.lists(st.lists(NUMBERS | VALUES, max_size=9), max_size=3)
RUNS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.lists(st.sampled_from([HEIGHT, WIDTH, float(WIDTH), 46340]) | VALUES, max_size=3)
        | VALUES,
        "counts": st.lists(NUMBERS, max_size=5) | st.text(max_size=9) | VALUES
        | st.sampled_from([[1200], [1200.0], [0, 1200], [600, 600], [600.5, 599.5]]),
    },
)  # fmt: skip
TREES = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
SHAPES = st.sampled_from([square(3, 4, 0), square(35, 4, 10), [[]], square(1, 1, 3)[0]])
ODD = TREES | POLYGONS | RUNS | SHAPES


def mangled(record: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """``record`` with some of its fields changed, and some gone."""
    boxes = st.lists(NUMBERS, min_size=4, max_size=4)
    fields = dict.fromkeys(record, ODD) | {"bbox": ODD | boxes, "segmentation": ODD}
    fields |= {"iscrowd": ODD, "ignore": ODD, "area": ODD}
    changes = st.fixed_dictionaries({}, optional=fields)
    gone = st.sets(st.sampled_from(sorted(record)), max_size=2)
    return st.builds(
        lambda new, old: {k: v for k, v in (record | new).items() if k in new or k not in old},
        changes.filter(lambda new: len(new) <= 3),
        gone,
    )


def of_bare_truth(raw: dict[str, Any]) -> None:
    image_id_of(raw, {1, 2, 3})
    annotation_of(raw, (HEIGHT, WIDTH), {1, 2}, needs_id=False)


def of_ingest(raw: dict[str, Any]) -> None:
    image_id_of(raw, {1, 2, 3})
    parse_annotation(raw, HEIGHT, WIDTH, {1, 2})


def of_bare_results(raw: dict[str, Any]) -> None:
    image_id_of(raw, {1, 2, 3})
    detection_of(raw, (HEIGHT, WIDTH), {1, 2})


def of_masks(raw: dict[str, Any]) -> None:
    _proposal(image_id_of(raw, {1, 2, 3}), raw, (HEIGHT, WIDTH))


def refusal(read: Any, raw: dict[str, Any]) -> Refused | None:
    try:
        return read(raw)
    except Refused as refused:
        return refused


def agree(bare: Refused | None, strict: Refused | None, not_needed: set[Reason]) -> None:
    """A bare file's reader refuses a record for the reason that the stricter reader has, in its
    words, and takes what that one refuses only where average precision can be of it."""
    if bare is not None:
        assert strict is not None
        assert (strict.reason, strict.what) == (bare.reason, bare.what)
    elif strict is not None:
        assert strict.reason in SCORED_ANYWAY | not_needed


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def judged(child: Child, kind: str, content: Any) -> dict[str, Any]:
    """What the readers of files say of it; none of them dies, fails or takes too much memory."""
    said = child.judge(kind, json.dumps(content).encode())
    assert "died" not in said, said
    assert "traceback" not in said, said["traceback"]
    assert said["peak"] < MOST_BYTES
    return said


def check_annotation(child: Child, raw: dict[str, Any]) -> None:
    bare, strict = refusal(of_bare_truth, raw), refusal(of_ingest, raw)
    agree(bare, strict, {Reason.MISSING} if raw.get("id") is None else set())
    first = ANNOTATION | {"id": 99}  # which says that annotations have places
    said = judged(child, "truth", small_truth() | {"annotations": [first, raw]})
    named = f"annotation {shown(raw.get('id'))}: "
    assert said["ingest"] == ([] if strict is None else [named + strict.what])
    assert (said["evaluate"] is None) == (bare is None)
    assert bare is None or said["evaluate"].endswith(f"annotations[1]: {bare.what}")


def check_detection(child: Child, raw: dict[str, Any]) -> None:
    bare, strict = refusal(of_bare_results, raw), refusal(of_masks, raw)
    if raw.get("score") is not None:
        agree(bare, strict, set())
    said = judged(child, "results", [raw])
    passed_over = strict is None or strict.reason == Reason.NO_IMAGE
    assert said["masks"] == ([] if passed_over else [strict.what])
    assert (said["evaluate"] is None) == (bare is None)
    assert bare is None or f"[0]: {bare.what}" in said["evaluate"]


@pytest.mark.parametrize(
    "change",
    [
        {}, {"id": None}, {"id": 5.0}, {"id": "5"}, {"id": 2**53 + 1}, {"image_id": 1.0},
        {"image_id": "1"},
        {"category_id": 1.5}, {"category_id": 7}, {"iscrowd": None}, {"iscrowd": True},
        {"iscrowd": "0"}, {"segmentation": [[]]}, {"segmentation": [[1, 2, 3, 4]]},
        {"segmentation": square(1, 1, 9)[0]}, {"segmentation": [[0, 0, 4e9, 0, 4e9, 4e9]]},
        {"segmentation": [[0, 0, 1e7, 0, 1e7, 1e7]]}, {"bbox": [1, 2, 0, 4]}, {"bbox": None},
        {"segmentation": {"size": [30.0, 40.0], "counts": [600.0, 600.0]}},
        {"segmentation": {"size": [46340, 46340], "counts": [46340**2]}},
        {"segmentation": square(3, 4, 0)}, {"area": "9"}, {"segmentation": [], "bbox": []},
    ],
)  # fmt: skip
def test_annotations(child: Child, change: dict[str, Any]) -> None:
    check_annotation(child, ANNOTATION | change)


@pytest.mark.parametrize(
    "change",
    [
        {}, {"score": None}, {"image_id": 1.0}, {"image_id": "1"}, {"image_id": 99}, {"score": "1"},
        {"score": 1},
        {"score": 7}, {"segmentation": None}, {"segmentation": [[]]}, {"segmentation": [[1, 2]]},
        {"segmentation": [[0, 0, 4e9, 0, 4e9, 4e9]]}, {"bbox": "none"}, {"bbox": None},
        {"segmentation": {"size": [30.0, 40], "counts": [600.0, 600]}},
        {"segmentation": {"size": [30, 40], "counts": [600.5, 599.5]}},
        {"segmentation": square(1, 1, 9)[0]}, {"segmentation": {"size": [30, 40], "counts": "1"}},
    ],
)  # fmt: skip
def test_detections(child: Child, change: dict[str, Any]) -> None:
    check_detection(child, DETECTION | change)


def many(test: Any) -> Any:
    """2,000 examples, 20,000 of the longest profile."""
    examples = min(MOST_EXAMPLES, 20 * settings.default.max_examples)
    return settings(max_examples=examples)(test)


@pytest.mark.thorough
@pytest.mark.timeout(7200)
@many
@given(mangled(ANNOTATION))
def test_any_annotation(child: Child, raw: dict[str, Any]) -> None:
    check_annotation(child, raw if raw.get("id") is not None else raw | {"id": 1})


@pytest.mark.thorough
@pytest.mark.timeout(7200)
@many
@given(mangled({k: v for k, v in DETECTION.items() if k != "category_id"}))
def test_any_detection(child: Child, raw: dict[str, Any]) -> None:
    score = 0.5 if raw.get("score") is None else raw["score"]
    check_detection(child, raw | {"category_id": 1, "score": score})
