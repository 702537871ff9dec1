"""Recipe kmeans in small, from the quickstart's artifacts to average precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import contents, gcdis, open_pipeline

from gcdis_ray.run.pipeline import iter_status
from gcdis_ray.run.plan import describe

FIXED = ["recipe=kmeans", "stages.discover={}", "stages.label={}"]
AFTER = ("discover", "curate", "label", "segment", "predict", "evaluate")


def _overrides(small_run, folder: Path) -> list[str]:
    """The small run's, but for discovery, on a copy of its storage."""
    was = next(o for o in small_run.overrides if o.startswith("storage=")).partition("=")[2]
    shutil.copytree(was, folder / "storage")
    mine = ("storage=", "stages.discover.gcdis.")
    kept = [o for o in small_run.overrides if not o.startswith(mine)]
    return [*kept, *FIXED, f"storage={folder / 'storage'}"]


@pytest.fixture(scope="module")
def overrides(small_run, tmp_path_factory) -> list[str]:
    overrides = _overrides(small_run, tmp_path_factory.mktemp("kmeans"))
    for entry in describe(open_pipeline(overrides)):
        assert (entry["action"] == "run") == (entry["name"] in AFTER)
        assert entry["bytes"] > 0
        assert entry["read_bytes"] > 0
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert "clustering accuracy" in done.stdout
    return overrides


def test_it_is_scored_like_any_other(overrides):
    pipeline = open_pipeline(overrides)
    assert {stage["state"] for stage in iter_status(pipeline)} == {"done"}
    discover, evaluate = pipeline.artifact("discover"), pipeline.artifact("evaluate")
    assert discover is not None
    assert evaluate is not None
    assert discover.json("method")["name"] == "kmeans"
    metrics = evaluate.json("metrics")
    assert set(metrics["discovery"]["accuracy"]) >= {"all", "known", "novel"}
    assert metrics["detection"]["mask_ap"]["all"] is not None
    status = json.loads(gcdis("status", overrides, "--json").stdout)
    assert status["metrics"]["discovery"] == metrics["discovery"]
    assert gcdis("report", overrides).returncode == 0


@pytest.mark.thorough
def test_crops_of_true_objects_are_sorted_by_the_kept_centres(overrides):
    mapping = "stages.evaluate.mapping={source: gt_crops, scope: all, drop: after_topk}"
    done = gcdis("evaluate", [*overrides, mapping])
    assert done.returncode == 0, done.stderr
    assert "mapping: source gt_crops" in done.stdout


@pytest.mark.thorough
def test_a_second_run_gives_the_same_bytes(overrides, small_run, tmp_path):
    again = _overrides(small_run, tmp_path)
    done = gcdis("run", again)
    assert done.returncode == 0, done.stderr
    assert contents(again) == contents(overrides)
