"""The whole pipeline in small: what it prints and stores, on a folder and on S3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import contents, gcdis, open_pipeline


@pytest.mark.slow
def test_status_has_what_scripts_rely_on(small_run):
    done = gcdis("status", small_run.overrides, "--json")
    status = json.loads(done.stdout)
    assert len(status["stages"]) == 10
    assert {stage["state"] for stage in status["stages"]} == {"done"}
    metrics = status["metrics"]
    for name in ("accuracy", "kmeans_accuracy"):
        assert set(metrics["discovery"][name]) >= {"all", "known", "novel"}
    for name in ("mask_ap", "box_ap"):
        assert set(metrics["detection"][name]) >= {"all", "known", "novel"}
    assert metrics["class_count"]["truth"] == 10
    assert metrics["class_count"]["estimate"] >= 5
    assert "clustering accuracy" in small_run.printed


@pytest.mark.slow
def test_a_second_run_does_nothing(small_run):
    done = gcdis("run", small_run.overrides)
    assert done.returncode == 0
    assert done.stderr.count("cached") == 11  # ten stages and the closing line
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert report.read_text().startswith("<!")


@pytest.mark.slow
def test_pruned_classes_reach_the_metrics_and_the_report(small_run, tmp_path: Path):
    """From the small run's crops on: twice as many novel outputs, most of them dropped."""
    shutil.copytree(open_pipeline(small_run.overrides).storage.uri, tmp_path / "storage")
    overrides = [
        *small_run.overrides,
        f"storage={tmp_path / 'storage'}",
        "stages.discover.prune={enabled: true, over_provision: 2, min_members: 12}",
        "stages.segment.training.steps=2",
    ]
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cached") == 6
    artifacts = open_pipeline(overrides).artifacts()
    metrics, pruning = artifacts["evaluate"].json("metrics"), artifacts["discover"].json("pruning")
    size = pruning["num_clusters"]
    assert pruning["num_outputs"] == 5 + 2 * (metrics["class_count"]["estimate"] - 5) > size
    assert metrics["class_count"]["discovered"] == len(metrics["clusters"]) == size
    labels = artifacts["label"].table("pseudo_labels").read(["class_index"])["class_index"]
    assert max(labels.to_pylist()) < size
    assert artifacts["segment"].json("segmenter_spec")["num_classes"] == size
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: ")).read_text()
    assert f"{pruning['num_outputs']} outputs trained" in report


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_s3_holds_the_same_bytes(small_run, s3_endpoint: str):
    overrides = [
        *small_run.overrides,
        "storage=s3://bucket/small",
        f"storage_endpoint={s3_endpoint}",
    ]
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == small_run.contents
    assert open_pipeline(overrides).storage.uri == "s3://bucket/small"
