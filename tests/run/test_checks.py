"""What is looked at before a run starts."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from unittest import mock

import pytest

from gcdis_ray.cli import main
from gcdis_ray.config import Closed, StageConfig, TrainingConfig
from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.checks import before_run, trainings
from gcdis_ray.run.pipeline import load_config

QUICKSTART = Path(__file__).resolve().parents[2] / "configs/quickstart.yaml"


def test_weights_of_the_encoder_are_looked_at(tmp_path: Path):
    before_run(load_config(QUICKSTART))
    at = "stages.discover.gcdis.model.encoder"
    changes = [
        f"{at}={{body: mobilenetv2_100, weights: {tmp_path / 'nowhere.npz'}, "
        f"weights_sha256: '{'a' * 64}'}}"
    ]
    with pytest.raises(ConfigError, match=r"cannot read the weights.*nowhere|nowhere.*cannot read"):
        before_run(load_config(QUICKSTART, changes))
    (tmp_path / "nowhere.npz").write_bytes(b"another file")
    with pytest.raises(ConfigError, match="the config wants aaa"):
        before_run(load_config(QUICKSTART, changes))
    digest = hashlib.sha256(b"another file").hexdigest()
    with pytest.raises(ConfigError, match="not an npz file"):
        before_run(load_config(QUICKSTART, [*changes, f"{at}.weights_sha256={digest}"]))


def test_training_sections_are_found_at_any_depth():
    class Inner(Closed):
        training: TrainingConfig = TrainingConfig(steps=3)
        rows: int = 2

    class Outer(Closed):
        inner: Inner = Inner()
        other: Inner | None = None

    class Config(StageConfig):
        warm_up: TrainingConfig = TrainingConfig(steps=1)
        outer: Outer = Outer()

    found = {path: training.steps for path, training in trainings(Config(), "stages.x")}
    assert found == {"stages.x.warm_up": 1, "stages.x.outer.inner.training": 3}
    graph = load_config(QUICKSTART).stages
    assert [path for path, _ in trainings(graph, "stages")] == [
        "stages.propose.training",
        "stages.discover.gcdis.training",
        "stages.segment.training",
    ]


@pytest.mark.parametrize("stage", ["propose", "discover.gcdis", "segment"])
def test_a_training_that_the_workers_cannot_share_is_named(stage: str):
    training = f"stages.{stage}.training"
    changes = [f"{training}.micro_batches=3", f"{training}.batch_size=12"]
    with pytest.raises(ConfigError, match="2 workers cannot share 3 parts") as error:
        before_run(load_config(QUICKSTART, [*changes, "compute={runtime: ray, workers: 2}"]))
    assert f"{training}.micro_batches" in str(error.value)


@pytest.mark.parametrize("command", ["plan", "run", "doctor"])
def test_a_strategy_whose_package_is_not_installed_is_named_before_ray_starts(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    write_scenes(tmp_path / "scenes", num_labeled=2, num_unlabeled=2, num_validation=1)
    changes = [
        "compute={strategy: deepspeed, runtime: ray, workers: 2}",
        f"stages.ingest.root={tmp_path / 'scenes'}",
        f"storage={tmp_path / 'storage'}",
    ]
    arguments = [command, str(QUICKSTART), *(t for c in changes for t in ("--set", c))]
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with mock.patch("gcdis_ray.runtime.ray_session.RaySession") as session:
        assert main(arguments) == 2
        said = "".join(capsys.readouterr())
        assert "compute.strategy: the package deepspeed is not installed" in said
        assert "set compute.strategy=ddp" in said
        if command == "plan":  # nothing is trained up to there
            assert main([*arguments, "--until", "ingest"]) == 0
    assert not session.called
    assert not (tmp_path / "storage" / "ingest").exists()


@pytest.mark.parametrize("command", ["plan", "run", "doctor"])
def test_bf16_on_a_processor_without_units_for_it(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    """Plan and doctor say so, run refuses before Ray starts, until it is told otherwise."""
    write_scenes(tmp_path / "scenes", num_labeled=2, num_unlabeled=2, num_validation=1)
    changes = [
        "stages.segment.training.precision=bf16",
        f"stages.ingest.root={tmp_path / 'scenes'}",
        f"storage={tmp_path / 'storage'}",
    ]
    arguments = [command, str(QUICKSTART), *(t for change in changes for t in ("--set", change))]
    monkeypatch.setattr("gcdis_ray.training.checks.has_bf16_units", lambda: False)
    with mock.patch("gcdis_ray.runtime.ray_session.RaySession") as session:
        assert main(arguments) == (2 if command == "run" else 0)
        said = "".join(capsys.readouterr())
        assert "this processor has no units for bf16" in said
        assert "stages.segment.training.precision" in said
        if command != "run":
            assert main([*arguments, "--set", "compute.slow_bf16=true"]) == 0
            assert "stages.segment.training.precision" not in "".join(capsys.readouterr())
        if command == "plan":  # nothing is trained up to there; a cluster has other machines
            assert main([*arguments, "--until", "ingest"]) == 0
            assert main([*arguments, "--set", "compute.address=10.0.0.1:6379"]) == 0
            assert "no units for bf16" not in "".join(capsys.readouterr())
    assert not session.called
    assert not (tmp_path / "storage" / "ingest").exists()


def test_a_config_that_hides_classes_can_be_planned_up_to_discover(tmp_path: Path):
    write_scenes(tmp_path / "scenes", num_labeled=2, num_unlabeled=2, num_validation=1)
    changes = [
        "stages.discover.hold_out.share=0.2",
        f"stages.ingest.root={tmp_path / 'scenes'}",
        f"storage={tmp_path / 'storage'}",
    ]
    sets = [text for change in changes for text in ("--set", change)]
    assert main(["plan", str(QUICKSTART), *sets]) == 2
    assert main(["plan", str(QUICKSTART), *sets, "--until", "discover"]) == 0
