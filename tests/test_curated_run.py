"""Decisions about the classes of a whole run, in small: what is due then, and what is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import gcdis, open_pipeline

from gcdis_ray.curating.acts import Act, Merge, Name, Reject, Split, Undo
from gcdis_ray.curating.log import append
from gcdis_ray.curating.naming import class_names
from gcdis_ray.curating.replay import replay_over
from gcdis_ray.run.opened import open_run
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.run.plan import describe

AFTER = ["curate", "label", "segment", "predict", "evaluate"]


@pytest.fixture
def overrides(small_run, tmp_path: Path) -> list[str]:
    was = next(o for o in small_run.overrides if o.startswith("storage=")).partition("=")[2]
    shutil.copytree(was, tmp_path / "storage")
    kept = [o for o in small_run.overrides if not o.startswith("storage=")]
    return [*kept, f"storage={tmp_path / 'storage'}"]


def _decide(pipeline: Pipeline, *acts: Act) -> None:
    found = pipeline.artifact("discover")
    assert found is not None
    key = pipeline.nodes["crop"].key
    append(pipeline.storage, key, acts, lambda log: replay_over(found, log))


def _novel(pipeline: Pipeline) -> list[list[int]]:
    """Unlabeled crops of each discovered class that has any, the largest first."""
    found = pipeline.artifact("discover")
    assert found is not None
    columns = ["crop_index", "class_index", "cluster_id"]
    crops: dict[int, list[int]] = {}
    for row in found.table("assignments").read(columns).to_pylist():
        if row["class_index"] < 0 and row["cluster_id"] >= 5:
            crops.setdefault(row["cluster_id"], []).append(row["crop_index"])
    return sorted(crops.values(), key=len, reverse=True)


def _due(overrides: list[str]) -> list[str]:
    return [e["name"] for e in describe(open_pipeline(overrides)) if e["action"] == "run"]


def test_a_merge_is_due_from_curate_on_and_a_name_nowhere(overrides):
    pipeline = open_pipeline(overrides)
    first, second = (crops[0] for crops in _novel(pipeline)[:2])
    _decide(pipeline, Name(first, "zebra"))
    assert _due(overrides) == []
    done = gcdis("status", overrides)
    assert "decided                1 named" in done.stdout
    _decide(pipeline, Merge((first, second)))
    assert _due(overrides) == AFTER
    _decide(pipeline, Undo())
    assert _due(overrides) == []
    pipeline.storage.write(f"names/{pipeline.nodes['crop'].key}/00003.json", b"{")
    for command in ("plan", "status", "run", "report"):
        done = gcdis(command, overrides)
        assert done.returncode == 2
        assert "00003.json, line 1: not JSON" in done.stderr
    assert gcdis("run", overrides, "--until", "discover").returncode == 0


@pytest.mark.thorough
def test_classes_as_people_want_them_are_trained_scored_and_shown(overrides):
    pipeline = open_pipeline(overrides)
    crops = _novel(pipeline)
    (one, *_), (two, *_), part, (four, *_) = crops[:4]
    _decide(pipeline, Name(one, "zebra"), Merge((one, two)), Reject(four))
    _decide(pipeline, Split(tuple(part[:3])), Name(part[0], "yak"))
    assert _due(overrides) == AFTER
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert "decided                2 named, 1 merge, 1 split, 1 rejected" in done.stdout
    page = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: ")).read_text()
    assert "zebra" in page
    assert "People split off yak." in page
    made = open_pipeline(overrides).artifacts()
    before, now = (made[n].json("discovered_classes") for n in ("discover", "curate"))
    assert len(now) == len(before) - 1
    assert made["segment"].json("segmenter_classes") == now
    labels = set(made["label"].table("pseudo_labels").read()["crop_index"].to_pylist())
    assert not labels & set(crops[3])
    metrics = made["evaluate"].json("metrics")
    assert metrics["discovery"]["num_crops_rejected"] == len(crops[3])
    assert len(metrics["clusters"]) == len(now)
    storage = next(o for o in overrides if o.startswith("storage=")).partition("=")[2]
    assert {"zebra", "yak"} <= set(class_names(open_run(storage)).values())
    mapping = "stages.evaluate.mapping={source: gt_crops, scope: all, drop: after_topk}"
    done = gcdis("evaluate", [*overrides, mapping])  # by the method, whose outputs are joined
    assert done.returncode == 0, done.stderr
