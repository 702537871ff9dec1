"""Crops against true objects: overlap by hand, and the same whatever the shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scene_tables import memory_table
from tables import SCHEMAS

from gcdis_ray.evaluation.crop_truth import CropTruth, MatchCrops, overlap
from gcdis_ray.masks.coco_rle import encode_window

SIZE = 20


def thing(image_id: int, box: list[int], masked: bool = True, **more: Any) -> dict[str, Any]:
    """A rectangle, with or without its mask."""
    x0, y0, x1, y1 = box
    rle = encode_window(np.ones((y1 - y0, x1 - x0), bool), x0, y0, SIZE, SIZE) if masked else None
    return {
        "image_id": image_id,
        "bbox_xyxy": box,
        "mask_rle": rle,
        "height_px": SIZE,
        "width_px": SIZE,
        **more,
    }


def true(image_id: int, box: list[int], category_id: int, **more: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    values = {
        "instance_id": 100 * image_id + x0,
        "category_id": category_id,
        "class_index": -1,
        "area_px": float((x1 - x0) * (y1 - y0)),
        "iscrowd": False,
        "split": "unlabeled",
    }
    return thing(image_id, box) | values | more


def proposal(number: int, image_id: int, box: list[int]) -> dict[str, Any]:
    values = {"proposal_id": number, "area_px": 1.0, "objectness": 0.5, "origin": "model"}
    return thing(image_id, box) | values


def label(number: int, image_id: int, source_id: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "image_id": image_id,
        "source_id": source_id,
        "class_index": 0,
        "probability": 1.0,
        "stability": 1.0,
        "reliability": 1.0,
    }


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])


def test_masks_where_both_have_one_boxes_for_the_rest_of_the_pairs():
    ring = np.ones((4, 4), bool)
    ring[1:3, 1:3] = False
    hollow = thing(1, [0, 0, 4, 4]) | {"mask_rle": encode_window(ring, 0, 0, SIZE, SIZE)}
    left = [hollow, thing(1, [0, 0, 4, 4], masked=False)]
    right = [thing(1, [0, 0, 4, 4]), thing(1, [0, 0, 4, 2], masked=False)]
    want = [[12 / 16, 8 / 16], [1, 8 / 16]]
    assert overlap(left, right) == pytest.approx(np.array(want))
    assert overlap(left, []).shape == (2, 0)
    assert overlap([], right).shape == (0, 2)


def scene() -> tuple[list[dict], list[dict], list[dict]]:
    """Image 1: a crop on each of two objects, and a crowd. Image 2: an object that only a proposal
    without a crop finds, and a crop of nothing. Image 3: two crops on one object. Image 4: none."""
    truth = [
        true(1, [0, 0, 10, 10], 7),
        true(1, [10, 0, 20, 10], 8),
        true(1, [0, 10, 20, 20], 7, iscrowd=True),
        true(2, [0, 0, 10, 10], 7),
        true(3, [0, 0, 10, 10], 9),
        true(5, [0, 0, 10, 10], 5, split="validation"),
    ]
    proposals = [
        proposal(11, 1, [0, 0, 10, 9]),
        proposal(12, 1, [11, 0, 20, 10]),
        proposal(13, 1, [0, 10, 20, 20]),
        proposal(21, 2, [0, 0, 10, 10]),
        proposal(22, 2, [12, 12, 20, 20]),
        proposal(31, 3, [0, 0, 10, 8]),
        proposal(32, 3, [0, 0, 10, 9]),
        proposal(41, 4, [0, 0, 10, 10]),
    ]
    sources = (11, 12, 13, 22, 31, 32, 41)
    labels = [label(n, source // 10, source) for n, source in enumerate(sources)]
    return truth, proposals, labels


def sharded(rows: list[dict], images: list[list[int]]) -> list[list[dict]]:
    return [[row for row in rows if row["image_id"] in mine] for mine in images]


def match(images: list[list[int]], min_iou: float = 0.5) -> CropTruth:
    truth, proposals, labels = (sharded(rows, images) for rows in scene())
    run = MatchCrops(min_iou).open("cpu")
    found = [
        run(
            n,
            table("truth_instances", truth[n]),
            table("pseudo_labels", labels[n]),
            table("proposals", proposals[n]),
        )
        for n in range(len(images))
    ]
    members = [
        memory_table(name, [one[name].to_pylist() for one in found])
        for name in ("crop_truth", "class_objects")
    ]
    return CropTruth.read(*members)


def test_every_crop_is_matched_as_counted_by_hand():
    found = match([[1, 2, 3, 4, 5]])
    assert found.category_U.tolist() == [7, 8, -1, -1, -1, 9, -1]
    assert found.objects_per_category == {7: 2, 8: 1, 9: 1}
    assert (found.num_objects, found.num_with_proposal, found.num_matched) == (4, 4, 3)
    assert found.categories_present == {5, 7, 8, 9}
    assert match([[1, 2, 3, 4, 5]], min_iou=0.95).num_with_proposal == 1


def test_an_image_that_is_an_object_shows_the_object_of_that_image():
    """Wherever its box lies; several objects are none of them, and a crowd is none."""
    truth = [
        true(1, [0, 0, 3, 3], 7),
        true(2, [0, 0, 20, 20], 8),
        true(2, [0, 0, 20, 20], 8, instance_id=9),
        true(3, [0, 0, 20, 20], 9, iscrowd=True),
        true(3, [4, 4, 5, 5], 5, mask_rle=None),
    ]
    whole = [proposal(n, n, [0, 0, 20, 20]) | {"origin": "image"} for n in (1, 2, 3, 4)]
    found = MatchCrops(0.5).open("cpu")(
        0,
        table("truth_instances", truth),
        table("pseudo_labels", [label(n - 1, n, n) for n in (1, 2, 3, 4)]),
        table("proposals", whole),
    )
    assert found["crop_truth"]["category_id"].to_pylist() == [7, -1, 5, -1]
    assert found["crop_truth"]["iou"].to_pylist() == [1, 0, 1, 0]
    counts = {r["category_id"]: r["with_proposal"] for r in found["class_objects"].to_pylist()}
    assert counts == {5: 1, 7: 1, 8: 0, 9: 0}


@pytest.mark.parametrize("images", [[[1], [2], [3], [4], [5]], [[5, 3], [], [4, 1, 2]]])
def test_shards_and_their_order_change_nothing(images: list[list[int]]):
    whole, parts = match([[1, 2, 3, 4, 5]]), match(images)

    def by_crop(found: CropTruth) -> dict[int, int]:
        return dict(zip(found.crop_index_U.tolist(), found.category_U.tolist(), strict=True))

    assert by_crop(parts) == by_crop(whole)
    assert parts.objects_per_category == whole.objects_per_category
    assert parts.num_with_proposal == whole.num_with_proposal
    assert parts.categories_present == whole.categories_present


def test_the_overlap_is_kept_beside_the_match():
    truth, proposals, labels = scene()
    run = MatchCrops(0.5).open("cpu")
    found = run(
        0,
        table("truth_instances", truth),
        table("pseudo_labels", labels),
        table("proposals", proposals),
    )
    ious = found["crop_truth"]["iou"].to_pylist()
    assert ious == pytest.approx([0.9, 0.9, 0, 0, 0, 0.9, 0])
