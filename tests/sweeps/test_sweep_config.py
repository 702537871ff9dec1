"""A sweep file is checked against the config it varies, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gcdis_ray.cli import main
from gcdis_ray.errors import ConfigError
from gcdis_ray.sweeps.config import fixed_values, goal_of, load_sweep

CONFIGS = Path(__file__).parents[2] / "configs"
COUNT = "stages.count.num_novel"
TEMPERATURE = "stages.discover.gcdis.discovery.temperature.maximum"


def sweep_file(folder: Path, **fields: Any) -> Path:
    spec: dict[str, Any] = {
        "base": str(CONFIGS / "quickstart.yaml"),
        "space": {TEMPERATURE: {"kind": "uniform", "low": 0.2, "high": 1.0}},
        "objective": "holdout_accuracy",
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**spec, **fields}))
    return file


def uniform(low: float, high: float) -> dict[str, Any]:
    return {"kind": "uniform", "low": low, "high": high}


def choice(*values: Any) -> dict[str, Any]:
    return {"kind": "choice", "values": list(values)}


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("sweep_*.yaml")))
def test_shipped_sweeps_are_valid(name: str):
    spec, base = load_sweep(CONFIGS / name)
    assert spec.name in name.replace("_", "-")
    assert not goal_of(spec, base).oracle
    assert base.name == "quickstart"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"objektive": "x"}, "did you mean 'objective'"),
        ({"objective": "holdout_acuracy"}, "did you mean 'holdout_accuracy'"),
        ({"objective": "beauty"}, "recipe gcdis offers labeled_accuracy, .*mask_ap_novel"),
        ({"hold_out": {"shar": 0.2}}, r"hold_out\.shar', did you mean 'share'"),
        ({"space": {}}, "space"),
        ({"space": {TEMPERATURE.replace("max", "mx"): uniform(0.2, 1)}}, "did you mean 'maximum'"),
        ({"space": {"stages.discoverr.snapshots": uniform(0, 1)}}, r"stages\.discover\.gcdis"),
        ({"space": {"seed": uniform(0, 1)}}, "use stages.STAGE.FIELD"),
        ({"space": {TEMPERATURE: uniform(0.2, 11)}}, "less than or equal to 10"),
        ({"space": {TEMPERATURE: uniform(1, 0.2)}}, "low must be below high"),
        ({"space": {TEMPERATURE: uniform(0.01, 0.2)}}, "maximum must not be below minimum"),
        ({"space": {TEMPERATURE: {"kind": "unifrm", "low": 0, "high": 1}}}, "unifrm"),
        ({"space": {"stages.segment.labeled_share": uniform(0.2, 0.5)}}, "before segment"),
        ({"searcher": "grid"}, "searcher grid takes dimensions of kind grid, choice and int"),
        ({"searcher": "random", "space": {TEMPERATURE: {"kind": "grid", "values": [1]}}},
         "needs searcher: grid"),
        ({"objective": "silhouette"}, "known . stages.count.num_novel classes, which nothing"),
        ({"objective": "silhouette", "scheduler": {"kind": "asha"}}, "no trial can be ended early"),
        ({"overrides": {"compute": {"workers": 3}}}, "cannot share"),
        ({"overrides": {"stages": {"count": {"num_novl": 3}}}}, "did you mean 'num_novel'"),
        ({"space": {"stages.discover.hold_out.share": uniform(0.2, 0.5)}}, "same in every trial"),
        ({"objective": "silhouette", "space": {COUNT + "l": uniform(0, 9)}}, "mean 'num_novel'"),
        ({"objective": "silhouette", "space": {COUNT: choice(None, 3)}}, "whole numbers .got None"),
        ({"objective": "silhouette", "space": {COUNT: uniform(0, 9)}}, "whole numbers .got 0.0"),
        ({"objective": "balanced_accuracy",
          "space": {COUNT: choice(2, 3), "stages.count.method": choice("mixture", "density")}},
         r"stages\.count\.method: balanced_accuracy is the same for every value"),
        ({"space": {"stages.discover.gcdis.cache_mb": {"kind": "int", "low": 64, "high": 128}}},
         "same for every value"),
        ({"oracle": True, "objective": "accuracy_novel",
          "overrides": {"stages": {"discover": {"hold_out": {"share": 0.2}}}}}, "hold_out"),
        ({"seeds": [1, 1]}, "a seed is given twice"),
        ({"base": "nowhere.yaml"}, "no such file"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, fields: dict[str, Any], words: str):
    if fields.get("objective") == "silhouette" and "space" not in fields:
        fields = fields | {"space": {"stages.count.dims": {"kind": "int", "low": 4, "high": 8}}}
    with pytest.raises(ConfigError, match=words):
        load_sweep(sweep_file(tmp_path, **fields))


@pytest.mark.parametrize("name", ["accuracy_novel", "mask_ap_all", "accuracy_known"])
def test_ground_truth_is_refused_unless_asked_for(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    file, storage = sweep_file(tmp_path, objective=name), tmp_path / "storage"
    assert main(["sweep", str(file), "--set", f"storage={storage}"]) == 2
    assert "oracle: true" in capsys.readouterr().err
    assert not storage.exists()
    assert goal_of(*load_sweep(file, ["oracle=true"])).oracle


def test_where_data_is_can_be_part_of_the_space(tmp_path: Path):
    """It is not in a key itself, but what lies there is."""
    spec, _ = load_sweep(sweep_file(tmp_path, space={"stages.ingest.root": choice("a", "b")}))
    assert set(spec.space) == {"stages.ingest.root"}


def test_fields_that_only_fit_together_are_allowed(tmp_path: Path):
    """Each of these alone contradicts the base, whose temperatures are 0.07 and 0.3."""
    space = {
        TEMPERATURE.replace("maximum", "minimum"): uniform(0.4, 0.5),
        TEMPERATURE: uniform(0.6, 1.0),
    }
    spec, _ = load_sweep(sweep_file(tmp_path, space=space))
    assert set(spec.space) == set(space)


def test_trackers_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uv sync --extra wandb"):
        load_sweep(sweep_file(tmp_path, trackers=["wandb"]))


def test_overrides_are_laid_over_the_base(tmp_path: Path):
    file = sweep_file(tmp_path, overrides={"stages": {"count": {"num_novel": 3}}})
    spec, base = load_sweep(file, ["overrides.compute.threads=2", "storage=elsewhere", "trials=7"])
    assert (base.stages.count.num_novel, base.compute.threads, base.storage) == (3, 2, "elsewhere")
    assert base.stages.ingest.root == "runs/digits-scenes"
    assert spec.trials == 7


def test_only_trials_hold_classes_out(tmp_path: Path):
    spec, base = load_sweep(sweep_file(tmp_path, hold_out={"share": 0.4, "every": 50}))
    fields = {"share": 0.4, "withheld": 1 / 3, "seed": 0, "every": 50}
    goal = goal_of(spec, base)
    assert fixed_values(spec, goal) == {
        f"stages.discover.hold_out.{k}": v for k, v in fields.items()
    }
    assert base.stages.discover.hold_out.share == 0
