"""The metrics' ``discovery`` by hand: what accuracy is of, and the same crops sorted otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from gcdis_ray.evaluation.baselines import Partition
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.evaluation.discovery_scores import ACCURACIES, discovery_block
from gcdis_ray.metrics.frequency import Third

# output 0 was trained on category 20, which is column 1; categories 10 and 30 are novel
CLASSES = ClassColumns(
    [{"category_id": i, "name": f"c{i}", "known": i == 20} for i in (10, 20, 30)], {0: 1}
)
THIRD_OF: dict[int, Third] = {1: "head", 0: "mid", 2: "tail"}
OBJECTS = {20: 8, 10: 4, 30: 2}  # of these, crops 1 to 7 show some; crop 0 is labeled, 8 of nothing
SHOWN = np.array([20, 20, 20, 10, 10, 30, 30, -1])
FOUND = Partition(np.array([0, 0, 0, 1, 1, 1, 2, 1, 2]), {0: 0})
NOTHING = {"all": None, "known": None, "novel": None}


def truth_of(shown: np.ndarray, objects: dict[int, int]) -> CropTruth:
    ids = frozenset(objects)
    return CropTruth(np.arange(1, 1 + len(shown)), shown, objects, 0, ids, True)


def block_of(shown: np.ndarray = SHOWN, objects: dict[int, int] = OBJECTS, **baselines: Partition):
    return discovery_block(FOUND, truth_of(shown, objects), CLASSES, THIRD_OF, baselines, 0.5)


def test_an_accuracy_tells_how_many_objects_it_is_of():
    block, named = block_of()
    # output 1 stands for category 10 (crops 4, 5), output 2 for 30 (crop 6); 3 and 7 are wrong
    assert named.tolist() == [1, 1, 0, 0, 0, 2, 0, 2]
    assert block["accuracy"] == pytest.approx({"all": 5 / 7, "known": 2 / 3, "novel": 3 / 4})
    assert block["num_crops_scored"] == 7
    assert block["objects_with_crop"] == {"all": 7 / 14, "known": 3 / 8, "novel": 4 / 6}
    assert block["found_and_sorted"] == {"all": 5 / 14, "known": 2 / 8, "novel": 3 / 6}
    for part, share in block["found_and_sorted"].items():
        assert share == pytest.approx(block["accuracy"][part] * block["objects_with_crop"][part])
    assert block["accuracy_by_frequency"] == {"head": 2 / 3, "mid": 1, "tail": 1 / 2}


def test_clusters_that_stand_for_known_classes_are_not_matched_to_others():
    swapped = np.array([0, 1, 1, 1, 0, 0, 2, 2, 0])
    found = block_of(
        placed_accuracy=Partition(swapped, {0: 0}),
        ss_kmeans_accuracy=Partition(FOUND.cluster_N, {0: 0}),
        kmeans_named_accuracy=Partition(swapped, {1: 0}),
        kmeans_accuracy=Partition(swapped),
    )[0]
    assert found["placed_accuracy"] == {"all": 2 / 7, "known": 0, "novel": 1 / 2}
    assert found["placed_accuracy_hungarian"] == {"all": 1, "known": 1, "novel": 1}
    assert found["placed_accuracy_by_frequency"] == {"head": 0, "mid": 0, "tail": 1}
    assert found["kmeans_named_accuracy"] == found["kmeans_accuracy"]
    assert found["kmeans_accuracy"] == {"all": 1, "known": 1, "novel": 1}
    for end in ("", "_hungarian", "_by_frequency"):
        assert found[f"ss_kmeans_accuracy{end}"] == found[f"accuracy{end}"]
    assert found["kmeans_pixels_accuracy"] == NOTHING


def test_every_accuracy_says_what_it_is_of():
    protocol = block_of()[0]["protocol"]
    names = [*ACCURACIES, *(f"{n}_hungarian" for n in ("accuracy", "placed_accuracy"))]
    for name in (*names, "by_frequency"):
        assert "crops of unlabeled images that are matched one-to-one to a true" in protocol[name]
    for name in ("objects_with_crop", "found_and_sorted"):
        assert "share of all true objects" in protocol[name]


def test_objects_that_no_crop_shows_count_as_not_found():
    block, named = block_of(np.full(8, -1))
    assert set(named.tolist()) == {-1}
    assert block["accuracy"] == NOTHING
    assert block["objects_with_crop"] == {"all": 0, "known": 0, "novel": 0}
    assert block["found_and_sorted"] == {"all": 0, "known": 0, "novel": 0}
    assert block["reason"] == "no crop matches a true object"
    no_novel = block_of(objects={20: 3}, shown=np.array([20] + [-1] * 7))[0]
    assert no_novel["objects_with_crop"] == {"all": 1 / 3, "known": 1 / 3, "novel": None}


def test_without_truth_there_is_no_share():
    block, _ = block_of(np.full(8, -1), {})
    assert block["objects_with_crop"] == block["found_and_sorted"] == NOTHING
    assert block["reason"] == "no ground truth for unlabeled images"
