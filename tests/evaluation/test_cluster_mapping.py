"""Outputs and classes: counts by hand, whatever the shards, and the maps they lead to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scene_tables import FakeArtifact, memory_tensors, rectangle_scenes
from test_crop_truth import sharded, table, thing, true
from toy_discovery import MODEL, fresh_model, spec_of

from gcdis_ray.data.crops.crop_cutting import cut_image
from gcdis_ray.data.images.image_check import decode_rgb
from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.cluster_mapping import CountDetections, CountTrueCrops, match_outputs
from gcdis_ray.evaluation.scored_images import in_mapping_half
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.metrics.detection_columns import best_of_image
from gcdis_ray.stages import crop

CATEGORIES = [
    {"category_id": 30, "name": "c", "known": False},
    {"category_id": 10, "name": "a", "known": True},
    {"category_id": 20, "name": "b", "known": False},
]
KNOWN = [{"class_index": 0, "category_id": 10, "name": "a"}]
CLASSES = ClassColumns.read(FakeArtifact({"categories": CATEGORIES, "classes": KNOWN}))


def test_classes_are_columns_by_rising_category():
    assert [row["category_id"] for row in CLASSES.categories] == [10, 20, 30]
    assert CLASSES.columns(np.array([30, 10, -1, 25, 99])).tolist() == [2, 0, -1, -1, -1]
    assert (CLASSES.known, CLASSES.column_of_output) == ([0], {0: 0})


def counts(*rows: tuple[int, int, int]) -> pa.Table:
    names = ("cluster_id", "category_id", "count")
    return table("cluster_counts", [dict(zip(names, row, strict=True)) for row in rows])


# output 0 was trained on class 10 but meets objects of class 20 more often
COUNTS = [(0, 10, 1), (0, 20, 5), (1, 10, 4), (1, 20, 3), (2, 30, 2), (3, 30, 3)]


def test_novel_only_keeps_known_outputs_and_all_gives_them_new_names():
    kept = match_outputs([counts(*COUNTS)], CLASSES, 4, "novel_only")
    assert kept == {0: 0, 1: 1, 3: 2}
    free = match_outputs([counts(*COUNTS)], CLASSES, 4, "all")
    assert free == {0: 1, 1: 0, 3: 2}


@examples(50)
@given(st.permutations(COUNTS), st.lists(st.integers(0, len(COUNTS)), max_size=4))
def test_counts_in_shards_of_any_order_give_one_map(rows: list, cuts: list[int]):
    bounds = [0, *sorted(cuts), len(rows)]
    shards = [counts(*rows[a:b]) for a, b in pairwise(bounds)]
    again = [counts((0, 20, 2)), counts((0, 20, 3)), *shards]  # output 0 meets class 20 ten times
    assert match_outputs(shards, CLASSES, 4, "all") == {0: 1, 1: 0, 3: 2}
    assert match_outputs(again, CLASSES, 4, "all") == {0: 1, 1: 0, 3: 2}


def test_without_counts_only_known_outputs_stand_for_something():
    assert match_outputs([], CLASSES, 4, "novel_only") == {0: 0}
    assert match_outputs([], CLASSES, 4, "all") == {}


# ------------------------------------------------------------ detections


def found(image_id: int, box: list[int], class_index: int, score: float) -> dict[str, Any]:
    return thing(image_id, box) | {"class_index": class_index, "score": score}


TRUTH = [
    true(1, [0, 0, 10, 10], 10, split="validation"),
    true(1, [10, 0, 20, 10], 20, split="validation"),
    true(2, [0, 0, 10, 10], 20, split="validation"),
    true(3, [0, 0, 10, 10], 30, split="validation"),
    true(3, [0, 10, 20, 20], 30, split="validation", iscrowd=True),
    true(4, [0, 0, 10, 10], 30, split="unlabeled"),
]
FOUND = [
    found(1, [0, 0, 10, 8], 2, 0.9),  # overlaps less than the next one
    found(1, [0, 0, 10, 9], 1, 0.2),
    found(1, [10, 0, 20, 10], 0, 0.8),
    found(2, [0, 0, 10, 4], 3, 0.9),  # too small
    found(2, [0, 0, 10, 10], 1, 0.1),
    found(3, [0, 10, 20, 20], 1, 0.9),  # a crowd
    found(3, [0, 0, 10, 10], 3, 0.8),
    found(4, [0, 0, 10, 10], 3, 0.8),  # not of the validation images
]


def count(images: list[list[int]], **changes: Any) -> dict[tuple[int, int], int]:
    run = CountDetections(**({"min_iou": 0.5, "max_per_image": 100} | changes)).open("cpu")
    total: dict[tuple[int, int], int] = {}
    truth, rows = sharded(TRUTH, images), sharded(FOUND, images)
    for n in range(len(images)):
        shard = run(n, table("predictions", rows[n]), table("truth_instances", truth[n]))
        for row in shard["cluster_counts"].to_pylist():
            pair = row["cluster_id"], row["category_id"]
            total[pair] = total.get(pair, 0) + row["count"]
    return total


def test_detections_are_counted_by_hand():
    assert count([[1, 2, 3, 4]]) == {(1, 10): 1, (0, 20): 1, (1, 20): 1, (3, 30): 1}
    # the two best of image 1 are the first and the third
    assert count([[1, 2, 3, 4]], max_per_image=2)[2, 10] == 1
    # the best one of image 2 is too small, that of image 3 is a crowd
    assert count([[1, 2, 3, 4]], max_per_image=1) == {(2, 10): 1}


@pytest.mark.parametrize("images", [[[1], [2], [3], [4]], [[4, 2], [], [3, 1]]])
def test_shards_of_images_change_no_count(images: list[list[int]]):
    assert count(images) == count([[1, 2, 3, 4]])
    assert count(images, half=True) == count([[1, 2, 3, 4]], half=True)


def test_half_of_the_images_is_fixed_by_their_ids():
    ids = list(range(1, 4001))
    half = in_mapping_half(ids)
    assert 1900 < half.sum() < 2100
    assert in_mapping_half(ids[::-1])[::-1].tolist() == half.tolist()
    # 6b86b273..., d4735e3a..., 4e074085...: SHA-256 of "1", "2" and "3"
    assert half[:3].tolist() == [True, False, True]
    assert count([[1, 2, 3, 4]], half=True) == {(1, 10): 1, (0, 20): 1, (3, 30): 1}


@examples(200)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.2, 0.5])), max_size=30),
    st.integers(1, 5),
)
def test_the_best_of_an_image_are_those_that_few_precede(rows: list, limit: int):
    image = np.array([i for i, _ in rows], dtype=np.int64)
    score = np.array([s for _, s in rows])
    kept = np.isin(np.arange(len(rows)), best_of_image(image, score, limit))
    for n, (i, s) in enumerate(rows):
        before = sum(j == i and (t > s or (t == s and m < n)) for m, (j, t) in enumerate(rows))
        assert kept[n] == (before < limit)


# ------------------------------------------------------------ true crops


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # by another name, as on a GPU: all at once
def test_true_objects_are_named_by_the_discovery_model(device: str):
    scenes = rectangle_scenes(("labeled", "validation", "validation"), per_shard=3)
    weights = memory_tensors(fresh_model(MODEL, 5).state_dict())
    stored, cut = StoredMethod("gcdis", spec_of(MODEL, 5), weights), crop.Config().cut
    run = CountTrueCrops(ImageFiles(), stored, cut).open(device)
    total: dict[tuple[int, int], int] = {}
    want: dict[tuple[int, int], int] = {}
    ready = stored.open("cpu")
    for shard in range(scenes.images.num_shards):
        images = scenes.images.shard(shard)
        rows = [
            row | {"split": image["split"]}
            for image in images.to_pylist()
            for row in scenes.truth[image["image_id"]]
            if image["split"] == "validation"
        ]
        for n, row in enumerate(list(rows)):
            if n % 3 == 1:
                row["mask_rle"] = None  # a box only: here, the mask is its box
            if n % 3 == 2:
                rows.append(row | {"iscrowd": True})
        nothing = encode_window(np.zeros((1, 1), bool), 0, 0, 64, 64)
        rows += [row | {"mask_rle": nothing} for row in rows[:1]]
        for row in run(shard, images, table("truth_instances", rows))["cluster_counts"].to_pylist():
            pair = row["cluster_id"], row["category_id"]
            total[pair] = total.get(pair, 0) + row["count"]
        for image in images.to_pylist():
            if image["split"] == "validation":
                for row in scenes.truth[image["image_id"]]:
                    one = cut_image(decode_rgb(image["bytes"]), [row["mask_rle"]], cut)[0]
                    shown = pa.table({name: [one[name]] for name in ("jpeg", "mask_png")})
                    output = int(ready.infer(shown).probabilities_NC.argmax())
                    pair = output, row["category_id"]
                    want[pair] = want.get(pair, 0) + 1
    assert total == want
    assert sum(total.values()) == 12
