"""The metrics of a run for a terminal."""

from __future__ import annotations

import pytest

from gcdis_ray.evaluation.scored_images import ARE_IMAGES, NO_PREDICTIONS
from gcdis_ray.evaluation.summary import below_start, metrics_lines, more_than_images

COUNT = {"estimate": 9, "discovered": 8, "truth": None}


def test_only_what_was_measured_has_a_line():
    metrics = {"discovery": {}, "detection": {}, "class_count": COUNT}
    assert metrics_lines(metrics) == [
        "class count            estimate 9   discovered 8   truth n/a"
    ]


@pytest.mark.parametrize("leak_free", [True, False])
def test_every_number_stands_in_its_place(leak_free: bool):
    mapping = {
        "source": "split_val", "scope": "all", "drop": "after_topk", "leak_free": leak_free,
        "note": "half of the images are scored",
    }  # fmt: skip
    found = metrics_lines(
        {
            "proposals": {
                "mask_ar10": {"all": None, "known": None, "novel": None},
                "box_ar100": {"all": 0.25, "known": 0.5, "novel": 0.125},
            },
            "discovery": {
                "accuracy": {"all": 0.5, "known": 0.75, "novel": None},
                "num_crops_scored": 1234,
                "objects_with_crop": {"all": 0.25, "known": 0.5, "novel": 0.0},
                "found_and_sorted": {"all": 0.125, "known": 0.375, "novel": 0.0},
                "placed_accuracy": {"all": None, "known": None, "novel": None},
                "ss_kmeans_accuracy": {"all": 0.4, "known": 0.6, "novel": None},
            },
            "detection": {
                "mask_ap": None,
                "box_ap": {"all": 0.1, "known": 0.2, "novel": 0.05},
                "ap_by_frequency": {"mask": None, "box": {"r": 0.01, "c": 0.02, "f": 0.03}},
                "rules": "lvis",
                "mapping": mapping,
            },
            "class_count": COUNT,
        }
    )
    leak = "leak-free" if leak_free else "uses labels of the scored images"
    assert found == [
        "proposals, box AR100   all 0.250   known 0.500   novel 0.125",
        "clustering accuracy    all 0.500   known 0.750   novel n/a   of 1,234 crops",
        "  objects with a crop  all 0.250   known 0.500   novel 0.000",
        "  found and sorted     all 0.125   known 0.375   novel 0.000",
        "  semi-sup. k-means    all 0.400   known 0.600   novel n/a",
        "box AP                 all 0.100   known 0.200   novel 0.050",
        "box AP by frequency    r 0.010   c 0.020   f 0.030",
        f"AP scored by           rules lvis; mapping: source split_val, scope all, drop after_topk "
        f"({leak})",
        "                       half of the images are scored",
        "class count            estimate 9   discovered 8   truth n/a",
    ]


@pytest.mark.parametrize(
    ("end", "start", "warned"),
    [(0.41, 0.46, True), (0.46, 0.46, False), (0.5, 0.46, False), (0.4, None, False)],
)
def test_training_that_lost_says_so(end: float, start: float | None, warned: bool):
    discovery = {
        "accuracy": {"all": end},
        "placed_accuracy": {"all": start},
        "num_crops_scored": 446,
    }
    line = (
        "discovery ended below its start: 0.410 after training, 0.460 placed "
        "(accuracy of 446 crops)"
    )
    assert below_start({"discovery": discovery}) == (line if warned else None)
    assert below_start({"discovery": {"accuracy": {"all": None}}}) is None


@pytest.mark.parametrize(
    ("interval", "words"),
    [([8, 11], "9 (8 to 11)"), ([5, 11], "5 to 11, at best 9"), ([9, 9], "9")],
)
def test_a_range_comes_first_where_the_number_is_hardly_known(interval, words: str):
    metrics = {"discovery": {}, "detection": {}, "class_count": COUNT | {"interval": interval}}
    assert metrics_lines(metrics)[-1].startswith(f"class count            estimate {words}   ")


@pytest.mark.parametrize(("reason", "objects"), [(None, 9), (ARE_IMAGES, 4), (ARE_IMAGES, 9)])
def test_images_that_show_more_than_one_object(reason: str | None, objects: int):
    metrics = {
        "proposals": {"reason": reason},
        "coverage": {"num_objects": objects, "num_unlabeled_crops": 4},
    }
    told = more_than_images(metrics)
    assert (told is not None) == (reason is not None and objects > 4)
    assert told is None or told.startswith("9 true objects on 4 images")


def test_a_recipe_that_predicts_nothing_has_no_line_of_it():
    metrics = {
        "discovery": {"accuracy": {"all": None}, "reason": "no ground truth"},
        "detection": {"mask_ap": {"all": None}, "reason": NO_PREDICTIONS},
        "class_count": COUNT,
    }
    assert metrics_lines(metrics)[:-1] == ["clustering accuracy    n/a: no ground truth"]
    metrics["detection"]["reason"] = "no image"
    assert metrics_lines(metrics)[1] == "mask AP                n/a: no image"
