"""Runs opened by their config, by their storage, and by what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import CONFIG as CONFIG_FILE

from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.run.opened import note_run, open_run
from gcdis_ray.run.pipeline import Pipeline, load_config

CONFIG = """
name: {name}
storage: {storage}
stages:
  ingest:
    root: {root}
    labeled: {{images: ., annotations: a.json}}
    unlabeled: {{images: .}}
    known_classes: [cat]
  evaluate: {{mapping: {{source: train_gt}}}}
"""


def noted(tmp_path: Path, name: str = "one") -> Path:
    """A config whose run is noted, and nothing of it made."""
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    path = tmp_path / f"{name}.yaml"
    path.write_text(CONFIG.format(name=name, storage=tmp_path / "s", root=tmp_path / "data"))
    sources = {"ingest": "data", "ground_truth": "truth"}
    note_run(Pipeline(load_config(path), sources=sources))
    return path


def test_a_copied_storage_says_what_was_run(tmp_path: Path):
    noted(tmp_path)
    shutil.copytree(tmp_path / "s", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "data")
    here, there = open_run(str(tmp_path / "s")), open_run(f"{tmp_path / 'elsewhere'}/")
    assert here.keys == there.keys
    assert there.storage.uri == str(tmp_path / "elsewhere")
    assert there.name == "one"
    assert there.crops_key == here.keys["crop"]


def test_noting_again_changes_nothing(tmp_path: Path):
    noted(tmp_path)
    note = tmp_path / "s" / "runs" / "one.json"
    before = note.stat().st_mtime_ns
    noted(tmp_path)
    assert note.stat().st_mtime_ns == before


def test_of_several_runs_one_is_named(tmp_path: Path):
    noted(tmp_path)
    noted(tmp_path, "two")
    with pytest.raises(ConfigError, match=r"2 runs lie there\n.*runs/one\.json.*runs/two\.json"):
        open_run(str(tmp_path / "s"))
    assert open_run(str(tmp_path / "s" / "runs" / "two.json")).name == "two"
    with pytest.raises(ConfigError, match="no such file"):
        open_run(str(tmp_path / "s" / "runs" / "three.json"))


def test_no_run_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no run lies there"):
        open_run(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"keys": {"ingest": "0" * 24}}, "it knows no stage ground_truth, propose"),
        ({"keys": 3}, "no note of a run"),
    ],
)
def test_a_note_that_is_none_is_told(tmp_path: Path, change: dict, said: str):
    noted(tmp_path)
    path = tmp_path / "s" / "runs" / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=said):
        open_run(str(tmp_path / "s"))


def test_overrides_are_of_a_config(tmp_path: Path):
    noted(tmp_path)
    with pytest.raises(ConfigError, match="opened by its storage"):
        open_run(str(tmp_path / "s"), ["seed=1"])


def test_what_is_not_made_is_told(tmp_path: Path):
    noted(tmp_path)
    run = open_run(str(tmp_path / "s"))
    assert not run.has("segmenter")
    with pytest.raises(ConfigError, match="stage segment has not been run"):
        run.artifact_with("segmenter")
    with pytest.raises(ConfigError, match="gives 'nonsense'"):
        run.inputs("nonsense")


def test_sealed_members_stay_shut(tmp_path: Path):
    noted(tmp_path)
    run = open_run(str(tmp_path / "s"))
    for member in ("truth_instances", "metrics"):
        with pytest.raises(ConfigError, match="sealed"):
            run.artifact_with(member)


def test_members_are_read_as_a_stage_would(small_run):
    run = open_run(str(CONFIG_FILE), small_run.overrides)
    inputs = run.inputs("segmenter", "discovered_classes", optional=("embeddings", "nothing"))
    assert inputs.has("embeddings")
    assert not inputs.has("nothing")
    assert inputs.tensor_file("segmenter").load()
    assert inputs.json("discovered_classes") == run.artifact_with("assignments").json(
        "discovered_classes"
    )
    by_storage = open_run(run.storage.uri)
    assert by_storage.keys == run.keys
