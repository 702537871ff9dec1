"""The whole pipeline in small: what it prints and stores, on a folder and on S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_run import contents, gcdis, open_pipeline

from gcdis_ray.report.series import read_history
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import LocalFolder


def test_status_has_what_scripts_rely_on(small_run):
    done = gcdis("status", small_run.overrides, "--json")
    status = json.loads(done.stdout)
    assert len(status["stages"]) == 12
    assert {stage["state"] for stage in status["stages"]} == {"done"}
    metrics = status["metrics"]
    for name in ("accuracy", "kmeans_accuracy"):
        assert set(metrics["discovery"][name]) >= {"all", "known", "novel"}
    for name in ("mask_ap", "box_ap"):
        assert set(metrics["detection"][name]) >= {"all", "known", "novel"}
    assert metrics["class_count"]["truth"] == 10
    assert metrics["class_count"]["estimate"] >= 5
    assert "clustering accuracy" in small_run.printed


def test_manifests_tell_how_fast_trainings_went(small_run):
    made = open_pipeline(small_run.overrides).artifacts()
    trained = {name for name, artifact in made.items() if artifact.manifest.pace}
    assert trained == {"propose", "discover", "segment"}
    for name in trained:
        curves = read_history(made[name])
        steps, rates = curves["pace/samples_per_s"]
        assert steps[-1] == curves["lr"][0][-1]
        assert (rates > 0).all()
        assert ((curves["pace/data_wait"][1] >= 0) & (curves["pace/data_wait"][1] <= 1)).all()
        assert "pace/gpu_use" not in curves
        assert not set(made[name].manifest.files) & set(made[name].manifest.pace)


def test_detections_are_scored_by_a_published_protocol(small_run):
    mapping = "{source: gt_crops, scope: all, drop: after_topk}"
    overrides = [*small_run.overrides, f"stages.evaluate.mapping={mapping}"]
    done = gcdis("evaluate", overrides)
    assert done.returncode == 0, done.stderr
    assert "mapping: source gt_crops, scope all, drop after_topk" in done.stdout
    found = open_pipeline(overrides).artifacts()["evaluate"]
    detection = found.json("metrics")["detection"]
    assert detection["mapping"]["name"] == "RNCDL"
    counts = found.table("cluster_counts").read()
    validation = found.json("metrics")["detection"]["scores"]
    assert sum(counts["count"].to_pylist()) == validation["objects"]
    assert 0 < len(detection["mapping"]["class_to_category"]) <= 10
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: ")).read_text()
    assert "as in RNCDL: one Hungarian assignment over all outputs x all classes" in report


def test_a_second_run_does_nothing(small_run):
    done = gcdis("run", small_run.overrides)
    assert done.returncode == 0
    assert done.stderr.count("cached") == 13  # twelve stages and the closing line
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert report.read_text().startswith("<!")


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_all_of_it_on_s3_gives_the_same_bytes(small_run, s3_endpoint: str, monkeypatch):
    """Data in a bucket, which the images stay in; artifacts in the bucket, too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the config says otherwise
    root = next(o for o in small_run.overrides if o.startswith("stages.ingest.root="))
    here, there = LocalFolder(root.partition("=")[2]), Prefix("s3://bucket/scenes", s3_endpoint)
    for name in here.names(""):
        there.write(name, here.read(name))
    overrides = [
        *small_run.overrides,
        "storage=s3://bucket/small",
        f"storage_endpoint={s3_endpoint}",
        "stages.ingest.root=s3://bucket/scenes",
        f"stages.ingest.endpoint={s3_endpoint}",
        "stages.ingest.store=uri",
    ]
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    made, expected = contents(overrides), dict(small_run.contents)
    ingest, copied = made.pop("ingest"), dict(expected.pop("ingest"))
    assert made == expected
    assert ingest.pop("images") != copied.pop("images")  # without the files
    ingest.pop("source")
    assert ingest == copied
    assert open_pipeline(overrides).storage.uri == "s3://bucket/small"


def test_scoring_by_another_map_needs_no_model(small_run):
    nodes = open_pipeline(small_run.overrides).nodes
    change = "stages.evaluate.mapping={source: detections, scope: all}"
    other = open_pipeline([*small_run.overrides, change]).nodes
    assert {name for name in nodes if nodes[name].key != other[name].key} == {"evaluate"}
    assert "segment" not in nodes["evaluate"].inputs
