"""Configs of runs that continue another one: what they inherit, and what they may not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gcdis_ray.errors import ConfigError, GcdisError
from gcdis_ray.run.continuing import settled
from gcdis_ray.run.opened import note_run
from gcdis_ray.run.pipeline import Pipeline, load_config
from gcdis_ray.sweeps.config import load_sweep

INGEST = {
    "labeled": {"images": ".", "annotations": "a.json"},
    "unlabeled": {"images": "."},
    "known_classes": ["cat"],
}
SOURCES = {"ingest": "data", "ground_truth": "truth"}


def write(path: Path, **values: Any) -> str:
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture
def first(tmp_path: Path) -> str:
    """The config of a run of which nothing is made."""
    stages = {
        "ingest": INGEST | {"root": str(tmp_path)},
        "crop": {"max_side_px": 96},
        "evaluate": {"mapping": {"source": "train_gt"}},
    }
    return write(tmp_path / "first.yaml", storage=str(tmp_path / "s"), stages=stages)


def second(first: str, tmp_path: Path, **more: Any) -> str:
    values = {
        "continue_from": first,
        "storage": str(tmp_path / "s"),
        "stages": {"ingest": {"root": str(tmp_path), "unlabeled": {"images": "new"}}},
    }
    return write(tmp_path / "second.yaml", **values | more)


def with_stages(first: str, tmp_path: Path, **sections: Any) -> str:
    own = {"ingest": {"root": str(tmp_path), "unlabeled": {"images": "new"}}}
    return second(first, tmp_path, stages=own | sections)


def test_sections_are_inherited(first: str, tmp_path: Path):
    config = load_config(second(first, tmp_path))
    assert config.recipe == "continued"
    assert config.stages.crop.max_side_px == 96
    assert config.stages.propose.model_dump() == load_config(first).stages.propose.model_dump()
    assert config.stages.ingest.known_classes is None


def test_what_is_said_again_has_to_agree(first: str, tmp_path: Path):
    load_config(with_stages(first, tmp_path, crop={"max_side_px": 96}))
    with pytest.raises(ConfigError, match=r"crop.max_side_px is 96 .*got 64") as error:
        load_config(with_stages(first, tmp_path, crop={"max_side_px": 64}))
    assert "leave it out" in str(error.value)
    with pytest.raises(ConfigError, match=r"detector.width is"):
        load_config(with_stages(first, tmp_path, propose={"detector": {"width": 8}}))


def test_the_storage_says_as_much_as_the_config(first: str, tmp_path: Path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    note_run(Pipeline(load_config(first), sources=SOURCES))
    by_config = settled(yaml.safe_load(Path(second(first, tmp_path)).read_text()), "x")
    storage = second(str(tmp_path / "s"), tmp_path)
    by_storage = settled(yaml.safe_load(Path(storage).read_text()), "x")
    assert by_config["stages"] == by_storage["stages"]


def test_a_storage_of_several_runs_is_asked_which(first: str, tmp_path: Path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    for name in ("one", "two"):
        note_run(Pipeline(load_config(first, [f"name={name}"]), sources=SOURCES))
    with pytest.raises(ConfigError, match="2 runs lie there"):
        load_config(second(str(tmp_path / "s"), tmp_path))
    load_config(second(str(tmp_path / "s" / "runs" / "two.json"), tmp_path))


@pytest.mark.parametrize("run", ["nowhere", "runs/none.json"])
def test_a_run_that_is_not_there_is_named(first: str, tmp_path: Path, run: str):
    with pytest.raises(GcdisError, match=run):
        load_config(second(str(tmp_path / run), tmp_path))


def test_a_recipe_that_takes_nothing_over_is_refused(first: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="recipe gcdis takes nothing over"):
        load_config(second(first, tmp_path, recipe="gcdis"))


def test_the_recipe_needs_an_earlier_run(tmp_path: Path):
    ingest = {"root": str(tmp_path), "unlabeled": {"images": "new"}}
    (tmp_path / "new").mkdir()
    config = write(tmp_path / "a.yaml", recipe="continued", stages={"ingest": ingest})
    with pytest.raises(ConfigError, match="none is named") as error:
        Pipeline(load_config(config))
    assert "continue_from" in str(error.value)


def test_sections_of_what_was_fitted_are_refused(first: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="no stage discover: what it gave is taken"):
        load_config(with_stages(first, tmp_path, discover={"method": "kmeans"}))


def test_new_images_bring_no_labels(first: str, tmp_path: Path):
    ingest = INGEST | {"root": str(tmp_path)}
    with pytest.raises(ConfigError, match="takes unlabeled images only"):
        load_config(second(first, tmp_path, stages={"ingest": ingest}))


def test_a_run_does_not_continue_itself(first: str, tmp_path: Path):
    mine = str(tmp_path / "second.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_config(second(mine, tmp_path))
    with pytest.raises(ConfigError, match="this very run"):
        load_config(second(first, tmp_path, name="first"))
    other = write(tmp_path / "third.yaml", continue_from=mine, stages={})
    second(other, tmp_path)
    with pytest.raises(ConfigError, match="circle"):
        load_config(other)


def test_it_says_how_far_the_earlier_run_has_to_come(first: str, tmp_path: Path):
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    note_run(Pipeline(load_config(first), sources=SOURCES))
    config = load_config(second(str(tmp_path / "s"), tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)stage ingest has not been run.*--until ingest"):
        Pipeline(config)


def test_a_sweep_has_nothing_to_try_there(first: str, tmp_path: Path):
    sweep = write(
        tmp_path / "sweep.yaml",
        base=Path(second(first, tmp_path)).name,
        objective="training_loss",
        space={"stages.renew.min_size": {"kind": "int", "low": 3, "high": 5}},
    )
    with pytest.raises(ConfigError, match="fits nothing that a sweep could try"):
        load_sweep(sweep)
