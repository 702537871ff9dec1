"""The metrics of a run for a terminal."""

from __future__ import annotations

import pytest

from gcdis_ray.evaluation.summary import metrics_lines

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
            "discovery": {"accuracy": {"all": 0.5, "known": 0.75, "novel": None}},
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
        "clustering accuracy    all 0.500   known 0.750   novel n/a",
        "box AP                 all 0.100   known 0.200   novel 0.050",
        "box AP by frequency    r 0.010   c 0.020   f 0.030",
        f"AP scored by           rules lvis; mapping: source split_val, scope all, drop after_topk "
        f"({leak})",
        "                       half of the images are scored",
        "class count            estimate 9   discovered 8   truth n/a",
    ]


@pytest.mark.parametrize(
    ("interval", "words"),
    [([8, 11], "9 (8 to 11)"), ([5, 11], "5 to 11, at best 9"), ([9, 9], "9")],
)
def test_a_range_comes_first_where_the_number_is_hardly_known(interval, words: str):
    metrics = {"discovery": {}, "detection": {}, "class_count": COUNT | {"interval": interval}}
    assert metrics_lines(metrics)[-1].startswith(f"class count            estimate {words}   ")
