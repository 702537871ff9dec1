"""The records of a sweep: what ended stays, what did not is taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml
from small_run import small_overrides
from small_sweep import sweep_file

from gcdis_ray.cli import main
from gcdis_ray.cli.telling import print_summaries
from gcdis_ray.clustering.class_count.clustered import Clustering
from gcdis_ray.clustering.class_count.points import CountSettings, Points
from gcdis_ray.errors import (
    ConfigError,
    DataError,
    GcdisError,
    RuntimeUnavailable,
    Stopped,
    StorageError,
)
from gcdis_ray.run.pipeline import Event, Pipeline
from gcdis_ray.sweeps.chosen import load_chosen
from gcdis_ray.sweeps.config import load_sweep
from gcdis_ray.sweeps.probes import measure_all
from gcdis_ray.sweeps.progress import line, table
from gcdis_ray.sweeps.run import _train_here
from gcdis_ray.sweeps.study import Study
from gcdis_ray.training.plan import Progress

MAXIMUM = "stages.discover.gcdis.discovery.temperature.maximum"


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return small_overrides(tmp_path_factory.mktemp("scenes"))


def open_study(folder: Path, overrides: list[str], **fields: Any) -> Study:
    file = sweep_file(folder, overrides, storage=str(folder / "storage"), **fields)
    return Study(*load_sweep(file))


def test_a_study_says_how_far_the_data_s_fingerprint_is(tmp_path: Path, overrides: list[str]):
    file = sweep_file(tmp_path, overrides, storage=str(tmp_path / "storage"))
    told: list[Event] = []
    Study(*load_sweep(file), told=told.append)
    assert {(event.stage, event.kind) for event in told} >= {("ingest", "progress")}


def outcome(objective: float) -> dict[str, Any]:
    return {
        "objective": objective, "by_seed": [objective], "metrics": {}, "curve": [],
        "keys": {"discover": ["k"]},
    }  # fmt: skip


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_new_driver_takes_up_what_has_not_ended(
    tmp_path: Path, overrides: list[str], searcher: str
):
    first = open_study(tmp_path, overrides, searcher=searcher)
    first.start()
    taken = [first.take() for _ in range(3)]
    first.ended(1, outcome(0.5), None)
    second = open_study(tmp_path, overrides, searcher=searcher)
    second.start()
    assert set(second.trials) == {1}
    assert [second.take(), second.take()] == [taken[0], taken[2]]  # with the same values
    fourth = second.take()
    assert fourth is not None
    assert fourth[0] == 3
    assert second.take() is None


def test_states_records_and_the_best(tmp_path: Path, overrides: list[str]):
    asha = {"kind": "asha", "min_steps": 5, "reduction": 2}
    study = open_study(tmp_path, overrides, scheduler=asha, trials=5)
    study.start()
    for _ in range(5):
        study.take()
    assert not study.told(0, 5, 1.0)
    assert study.told(1, 6, 2.0)  # a loss: larger is worse
    study.ended(0, outcome(0.7), None)
    study.ended(1, None, None)
    study.ended(2, None, "no room")
    study.ended(3, outcome(0.3), None, cached=True)
    study.ended(4, outcome(float("nan")), None)
    kept = {p.name: json.loads(p.read_text()) for p in Path(study.folder.uri, "trials").iterdir()}
    assert [kept[f"0000{n}.json"]["state"] for n in range(5)] == [
        "done", "stopped", "failed", "done", "failed",
    ]  # fmt: skip
    assert kept["00000.json"]["curve"] == [{"step": 5, "value": 1.0}]
    assert (kept["00001.json"]["objective"], kept["00001.json"]["keys"]) == (2.0, {})
    assert kept["00002.json"]["error"] == "no room"
    assert (kept["00003.json"]["cached"], kept["00003.json"]["seconds"]) == (True, 0.0)
    assert "not a number" in kept["00004.json"]["error"]
    best, chosen = study.finish()
    assert best.number == 3
    assert chosen.stages.discover.gcdis.discovery.temperature.maximum == best.values[MAXIMUM]
    assert json.loads(Path(study.folder.uri, "result.json").read_text())["best"] == 3
    assert "trials 5/5  2 done, 1 stopped, 2 failed, 1 cached  best 0.3000 (trial 3)" in line(
        study, 1.0
    )
    shown = table(study).splitlines()
    assert [row.split()[0] for row in shown[1:]] == ["3", "0", "1", "2", "4"]

    # What was chosen runs, with other values on top.
    again = load_chosen(study.folder.uri, ["compute.workers=1"])
    assert again.model_copy(update={"compute": chosen.compute}) == chosen
    assert again.compute.workers == 1


def test_later_trials_are_compared_with_cached_ones(tmp_path: Path, overrides: list[str]):
    asha = {"kind": "asha", "min_steps": 5, "reduction": 2}
    study = open_study(tmp_path, overrides, scheduler=asha)
    study.take()
    study.ended(0, {**outcome(1.0), "curve": [{"step": 5, "value": 1.0}]}, None, cached=True)
    study.take()
    assert study.told(1, 5, 2.0)  # a loss: larger is worse


def test_a_stop_that_came_after_the_first_seed_ends_the_next(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
):
    """It can be decided when the first seed has just told its last value."""
    body = open_study(tmp_path, overrides, seeds=[0, 1]).body()
    steps = [
        Event("discover", "progress", progress=Progress(n, 2, "steps", loss=0.5)) for n in (1, 2)
    ]

    def run(self: Any, runtime: Any, show: Any, start: Any = None, until: Any = None) -> None:
        for event in steps:
            show(event)

    monkeypatch.setattr("gcdis_ray.sweeps.trial.Pipeline.run", run)
    told: list[tuple[int, float]] = []

    def tell(step: int, value: float) -> None:
        if len(told) == 2:
            raise Stopped("ended by the scheduler")
        told.append((step, value))

    with pytest.raises(Stopped):
        body({MAXIMUM: 0.5}, tell)
    assert told == [(1, 0.5), (2, 0.5)]


def test_sweep_record_holds_what_the_report_reads(tmp_path: Path, overrides: list[str]):
    study = open_study(tmp_path, overrides, objective="holdout_accuracy")
    study.start()
    record = json.loads(Path(study.folder.uri, "sweep.json").read_text())
    assert record["space"] == {MAXIMUM: {"kind": "uniform", "low": 0.2, "high": 1.0}}
    assert record["fixed"]["stages.discover.hold_out.share"] == 0.2
    names = ("name", "oracle", "kind", "objective", "direction")
    assert [record[name] for name in names] == [
        "small-sweep", False, "train", "holdout_accuracy", "max",
    ]  # fmt: skip
    assert record["base"]["stages"]["discover"]["hold_out"]["share"] == 0
    assert record["key"].startswith(study.folder.base[-8:])
    study.take()
    study.ended(0, outcome(0.7), None)
    _, chosen = study.finish()
    assert chosen.stages.discover.hold_out.share == 0


@pytest.mark.parametrize("objective", ["accuracy_novel", "training_loss"])
def test_the_chosen_config_says_who_chose_it(tmp_path: Path, overrides: list[str], objective: str):
    study = open_study(tmp_path, overrides, objective=objective, oracle=True)
    study.take()
    study.ended(0, outcome(0.7), None)
    study.finish()
    chosen = load_chosen(study.folder.uri)
    assert chosen.oracle == (objective == "accuracy_novel")
    plain = Pipeline(chosen.model_copy(update={"oracle": False}))
    assert {n: node.key for n, node in Pipeline(chosen).nodes.items()} == {
        n: node.key for n, node in plain.nodes.items()
    }


def test_an_edited_sweep_is_a_new_one(tmp_path: Path, overrides: list[str]):
    same = open_study(tmp_path, overrides).key
    assert open_study(tmp_path, overrides, max_concurrent=1, trackers=[]).key == same
    assert open_study(tmp_path, [*overrides, "compute.threads=3"]).key == same
    assert open_study(tmp_path, overrides, trials=5).key != same
    assert open_study(tmp_path, [*overrides, "seed=1"]).key != same
    assert open_study(tmp_path, [*overrides, "stages.discover.gcdis.snapshots=4"]).key != same
    later = "stages.segment.training.steps=3"  # no trial runs it, the chosen config does
    assert open_study(tmp_path, [*overrides, later]).key != same


def test_without_a_finished_trial_nothing_is_chosen(tmp_path: Path, overrides: list[str]):
    study = open_study(tmp_path, overrides)
    study.take()
    study.ended(0, None, "no room")
    with pytest.raises(GcdisError, match="trial 0: no room"):
        study.finish()
    with pytest.raises(ConfigError, match=r"no best\.yaml"):
        load_chosen(study.folder.uri)


def test_seeds_change_trials_and_not_what_they_share(tmp_path: Path, overrides: list[str]):
    study = open_study(tmp_path, overrides, seeds=[0, 7])
    body = study.body()
    zero, seven = (body.pipeline({MAXIMUM: 0.5}, seed) for seed in study.seeds)
    assert study.shared_stages()[-1] == "count"
    for name, node in study.base.nodes.items():
        same = name in study.shared_stages()
        assert (zero.nodes[name].key == seven.nodes[name].key) == same
        assert (zero.nodes[name].key == node.key) == same


def test_a_trial_has_the_keys_of_an_ordinary_run(tmp_path: Path, overrides: list[str]):
    from small_run import CONFIG

    from gcdis_ray.run.pipeline import load_config

    study = open_study(tmp_path, overrides)
    trial = study.body().pipeline({MAXIMUM: 0.5}, study.config.seed)
    run = Pipeline(load_config(CONFIG, [*overrides, f"{MAXIMUM}=0.5"]))
    assert {n: node.key for n, node in trial.nodes.items()} == {
        n: node.key for n, node in run.nodes.items()
    }


def test_plan_writes_nothing(
    tmp_path: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
):
    file = sweep_file(tmp_path, overrides, storage=str(tmp_path / "storage"))
    assert main(["sweep", str(file), "--plan"]) == 0
    assert "4 trials (random), minimum of training_loss" in capsys.readouterr().out
    assert main(["sweep", str(file), "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shared_stages"][-1] == "count"
    assert not (tmp_path / "storage").exists()


def test_run_wants_a_config_or_a_sweep(capsys: pytest.CaptureFixture[str]):
    assert main(["run"]) == 2
    assert "either a config or --from-sweep" in capsys.readouterr().err


def test_records_on_s3(
    tmp_path: Path, overrides: list[str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    file = sweep_file(tmp_path, overrides, storage="s3://bucket/sweeps", searcher="optuna")
    first = Study(*load_sweep(file))
    first.start()
    taken = [first.take() for _ in range(2)]
    first.ended(0, outcome(0.5), None)
    second = Study(*load_sweep(file))
    assert set(second.trials) == {0}
    assert second.take() == taken[1]
    best, _ = second.finish()
    assert (
        load_chosen(second.folder.uri).stages.discover.gcdis.discovery.temperature.maximum
        == (best.values[MAXIMUM])
    )


def test_best_yaml_is_plain(tmp_path: Path, overrides: list[str]):
    study = open_study(tmp_path, overrides)
    study.take()
    study.ended(0, outcome(1.0), None)
    study.finish()
    data = yaml.safe_load(Path(study.folder.uri, "best.yaml").read_text())
    assert data["storage"] == str(tmp_path / "storage")


class FakeBody:
    """Stands for what runs trials: each call raises or gives what its number says."""

    def __init__(self, ends: list[Any]) -> None:
        self._ends = iter(ends)

    def cached(self, values: Any) -> None:
        return None

    def __call__(self, values: Any, tell: Any) -> Any:
        end = next(self._ends)
        if isinstance(end, Exception):
            raise end
        return end


def test_any_failure_of_a_trial_is_a_line_and_the_next_one_runs(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
):
    study = open_study(tmp_path, overrides, trials=4)
    body = FakeBody(
        [ValueError("x\ny"), DataError("bad", where="a"), RuntimeError("full"), outcome(1.0)]
    )
    monkeypatch.setattr(study, "body", lambda: body)
    _train_here(study)
    assert [(t.state, t.error) for t in study.trials.values()] == [
        ("failed", "ValueError: y"), ("failed", "a: bad"), ("failed", "RuntimeError: full"),
        ("done", None),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [StorageError, RuntimeUnavailable])
def test_surroundings_end_the_sweep_and_are_no_trial_s_record(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
):
    study = open_study(tmp_path, overrides, trials=2)
    body = FakeBody([outcome(1.0), kind("cannot be reached")])
    monkeypatch.setattr(study, "body", lambda: body)
    with pytest.raises(kind, match="cannot be reached"):
        _train_here(study)
    again = open_study(tmp_path, overrides, trials=2)
    assert set(again.trials) == {0}
    body = FakeBody([outcome(2.0)])
    monkeypatch.setattr(again, "body", lambda: body)
    _train_here(again)
    assert [t.state for t in again.trials.values()] == ["done", "done"]


def test_a_clustering_that_fails_is_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("gcdis_ray.clustering.class_count.clustered.measure", fail)
    points = Points(torch.zeros(3, 2), torch.tensor([0, 1, -1]))
    assert (
        measure_all(points, [Clustering(2, CountSettings(), 0)] * 2)
        == [{"error": "RuntimeError: out of memory"}] * 2
    )


@pytest.mark.parametrize("oracle", [True, False])
def test_the_mark_stands_beside_the_metrics(
    oracle: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gcdis_ray.run.summary.summaries", lambda pipeline: ["mask AP 12.3"])
    run = SimpleNamespace(config=SimpleNamespace(oracle=oracle))
    print_summaries(cast("Any", run))
    assert ("ORACLE" in capsys.readouterr().out) == oracle
