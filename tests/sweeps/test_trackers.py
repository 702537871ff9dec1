"""What trackers are told of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.errors import ConfigError
from gcdis_ray.store.storage import LocalStorage
from gcdis_ray.sweeps.records import SweepFolder, Trial
from gcdis_ray.sweeps.trackers import open_trackers

TRIAL = Trial(
    3, {"a.lr": 0.5, "a.pools": [1, 2]}, "done", 0.25, (0.25,),
    curve=({"step": 10, "value": 0.5}, {"step": 20, "value": 0.25}),
)  # fmt: skip


def tell(names: list[str], folder: Path) -> SweepFolder:
    sweep = SweepFolder(LocalStorage(str(folder / "storage")), "sweeps/s-12345678")
    for tracker in open_trackers(names, sweep, "loss"):
        tracker.ended(TRIAL)
    return sweep


def test_tensorboard_curve_is_read_back(tmp_path: Path):
    from tensorboardX.proto.event_pb2 import Event

    sweep = tell([], tmp_path)
    (path,) = sweep.storage.list(f"{sweep.base}/tensorboard/00003")
    data, found = sweep.storage.read(path), []
    while data:  # records: length, its checksum, data, its checksum
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        data = data[16 + size :]
    assert ("loss/way", 10, 0.5) in found
    assert ("loss/way", 20, 0.25) in found
    assert ("loss", 0, 0.25) in found


def test_mlflow_run_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell(["mlflow"], tmp_path)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("s-12345678")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a.lr": "0.5", "a.pools": "[1, 2]"}
    assert run.data.metrics["loss"] == 0.25
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss.way")] == [0.5, 0.25]


def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tell(["wandb"], tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


class Broken:
    def __init__(self, group: str, objective: str) -> None:
        self.told = 0

    def ended(self, trial: Trial) -> None:
        self.told += 1
        raise ConnectionError("nobody answers\nat all")


def test_a_tracker_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = Broken("", "")
    monkeypatch.setattr("gcdis_ray.sweeps.trackers.MLflow", lambda *args: broken)
    sweep = SweepFolder(LocalStorage(str(tmp_path)), "sweeps/s-12345678")
    trackers = open_trackers(["mlflow"], sweep, "loss")
    for _ in range(2):
        for tracker in trackers:
            tracker.ended(TRIAL)
    said = capsys.readouterr().err
    assert said.count("nobody answers") == said.count("mlflow") == 1
    assert broken.told == 1
    assert sweep.storage.list(f"{sweep.base}/tensorboard")  # the other one goes on


def test_a_tracker_that_does_not_start_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(group: str, objective: str) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("gcdis_ray.sweeps.trackers.WandB", refuse)
    with pytest.raises(ConfigError, match="wandb does not start: ConnectionError: nobody"):
        open_trackers(["wandb"], SweepFolder(LocalStorage(str(tmp_path)), "sweeps/s"), "loss")
