"""Sweeps from start to end over the small run: its shared stages are made, trials are not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from marked import LAST_WORDS_S, Mark, looks_into_proc
from small_run import environment, gcdis, open_pipeline, program
from small_sweep import copy_of, gcdis_sweep, sweep_file

from gcdis_ray.cli import main
from gcdis_ray.sweeps.config import load_sweep
from gcdis_ray.sweeps.study import Study
from gcdis_ray.training import loop

COUNT = "stages.count.num_novel"
MAXIMUM = "stages.discover.gcdis.discovery.temperature.maximum"
EPOCHS = "stages.discover.gcdis.training.epochs"


def opened(file: Path) -> Study:
    return Study(*load_sweep(file))


def records(file: Path) -> dict[int, dict[str, Any]]:
    folder = Path(opened(file).folder.uri, "trials")
    return {int(p.stem): json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


@pytest.mark.ray
@pytest.mark.thorough
def test_class_count_curve_is_equal_through_tasks_a_loop_and_the_stage(
    tmp_path: Path, small_run, ray_address
):
    overrides = copy_of(small_run, tmp_path)
    most = 40
    space = {COUNT: {"kind": "int", "low": 0, "high": most}}
    fields: dict[str, Any] = dict(
        space=space, objective="balanced_accuracy", searcher="grid", trials=None, seeds=[0, 1, 2, 3]
    )
    found = {}
    on_ray = ["compute.runtime=ray", f"compute.address={ray_address}"]
    for runtime, compute in (("local", ["compute.runtime=local"]), ("ray", on_ray)):
        file = sweep_file(tmp_path, [*overrides, *compute], name=runtime, **fields)
        done = gcdis_sweep(file, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["trials"] == {"done": most + 1}
        found[runtime] = [{**r, "seconds": 0} for r in records(file).values()]
    assert found["local"] == found["ray"]
    by_count = {record["metrics"]["num_classes"]: record for record in found["ray"]}

    # The stage tries some of the same numbers on the same draws.
    here = ["compute.runtime=local", "stages.count.method=labeled_accuracy"]
    asked = [*overrides, *here, "stages.count.num_seeds=4", "stages.count.max_classes=40"]
    done = gcdis("run", asked, "--until", "count")
    assert done.returncode == 0, done.stderr
    curve = open_pipeline(asked).artifacts()["count"].json("class_count")["curve"]
    shared = [point for point in curve if point["num_classes"] in by_count]
    assert len(shared) > 3
    for point in shared:
        metrics = by_count[point["num_classes"]]["metrics"]
        assert metrics["balanced_accuracy"] == pytest.approx(point["accuracy"], abs=1e-12)
        assert metrics["silhouette"] == pytest.approx(point["silhouette"], abs=1e-12)
        assert metrics["inertia"] == pytest.approx(point["inertia"], rel=1e-6)


def test_embeddings_can_be_part_of_the_space(tmp_path: Path, small_run):
    """Each kind of embedding is made once; too many clusters fail alone."""
    space = {
        "stages.embed.use_mask": {"kind": "choice", "values": [True, False]},
        COUNT: {"kind": "choice", "values": [3, 5000]},
    }
    file = sweep_file(
        tmp_path, copy_of(small_run, tmp_path), space=space, objective="silhouette",
        searcher="grid", trials=None,
    )  # fmt: skip
    assert main(["sweep", str(file)]) == 0
    found = records(file)
    assert [r["state"] for r in found.values()] == ["done", "failed"] * 2
    assert "clusters of" in found[1]["error"]
    assert found[0]["keys"] != found[2]["keys"]
    assert found[0]["objective"] != found[2]["objective"]


def test_oracles_say_so(tmp_path: Path, small_run, capsys: pytest.CaptureFixture[str]):
    space = {"stages.predict.min_score": {"kind": "grid", "values": [1e-3]}}  # as the run had it
    file = sweep_file(
        tmp_path, copy_of(small_run, tmp_path), space=space, objective="mask_ap_all",
        searcher="grid", trials=None, oracle=True,
    )  # fmt: skip
    assert main(["sweep", str(file)]) == 0
    assert "ORACLE" in capsys.readouterr().out
    assert records(file)[0]["cached"]
    record = json.loads(Path(opened(file).folder.uri, "sweep.json").read_text())
    assert record["oracle"] is True
    assert main(["run", "--from-sweep", opened(file).folder.uri]) == 0  # all cached
    assert "ORACLE" in capsys.readouterr().out


def test_trained_cached_and_failed_trials_in_this_process(
    tmp_path: Path, small_run, capsys: pytest.CaptureFixture[str]
):
    overrides = copy_of(small_run, tmp_path)
    file = sweep_file(
        tmp_path,
        overrides,
        space={
            EPOCHS: {"kind": "grid", "values": [None, 1e-3]},  # one step: too few for snapshots
            MAXIMUM: {"kind": "grid", "values": [0.3, 0.5]},  # 0.3 is what the run had
        },
        searcher="grid",
        trials=None,
    )
    assert main(["sweep", str(file)]) == 0
    found = records(file)
    assert [r["state"] for r in found.values()] == ["done", "done", "failed", "failed"]
    assert [r["cached"] for r in found.values()] == [True, False, False, False]
    assert found[0]["keys"]["discover"] == [open_pipeline(overrides).nodes["discover"].key]
    assert "two snapshots" in found[2]["error"]
    assert found[1]["curve"][-1]["value"] == found[1]["objective"]
    printed = capsys.readouterr()
    assert "= trial 0" in printed.err
    assert "chosen config:" in printed.out
    folder = Path(opened(file).folder.uri)
    assert f"report: {folder}/report.html" in printed.out
    page = (folder / "report.html").read_text()
    assert f"gcdis run --from-sweep {folder}" in page
    assert "two snapshots" in page

    # Again: nothing is left to do, and no record changes.
    assert main(["sweep", str(file)]) == 0
    assert "trial 0" not in capsys.readouterr().err
    assert records(file) == found
    uri = opened(file).folder.uri
    assert main(["run", "--from-sweep", uri, "--until", "discover"]) == 0
    assert "✓" not in capsys.readouterr().err  # every stage is cached


def test_poor_trials_are_ended_early_here_too(
    tmp_path: Path, small_run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "PROGRESS_EVERY_S", 0.0)  # every step is told, however fast it is
    space = {"stages.discover.gcdis.training.lr": {"kind": "grid", "values": [0.002, 1e-6, 1e-7]}}
    asha = {"kind": "asha", "min_steps": 4, "reduction": 2}
    file = sweep_file(
        tmp_path, copy_of(small_run, tmp_path), space=space, searcher="grid", trials=None,
        scheduler=asha,
    )  # fmt: skip
    assert main(["sweep", str(file)]) == 0
    found = records(file)
    assert found[0]["state"] == "done"
    stopped = [r for r in found.values() if r["state"] == "stopped"]
    assert stopped
    for record in stopped:
        assert record["objective"] == record["curve"][-1]["value"]
        assert record["curve"][-1]["step"] < 12


@looks_into_proc
@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_killed_sweep_runs_only_what_is_missing(tmp_path: Path, small_run):
    """Four trials, the first cached, two at a time, Train inside Tune; kill -9 of the driver
    once one that trained has ended. The same command takes up the others, and ends."""
    small = ["compute.runtime=ray", "compute.workers=1", "compute.data_workers=1"]
    overrides = copy_of(small_run, tmp_path, *small)
    space = {MAXIMUM: {"kind": "grid", "values": [0.3, 0.4, 0.5, 0.6]}}  # 0.3: as the run had it
    file = sweep_file(
        tmp_path, overrides, max_concurrent=2, space=space, searcher="grid", trials=None
    )
    mark = Mark("sweep")
    driver = subprocess.Popen(
        program(["sweep", str(file)]), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        env=environment() | mark.variable,
    )  # fmt: skip
    while len(records(file)) < 2 and driver.poll() is None:
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    before = records(file)
    assert 2 <= len(before) < 4
    assert before[0]["cached"]
    assert mark.left_over(LAST_WORDS_S) == []
    done = gcdis_sweep(file)
    assert done.returncode == 0, done.stderr
    after = records(file)
    assert {n: after[n] for n in before} == before
    assert [r["state"] for r in after.values()] == ["done"] * 4
    told = [
        line.split()[2] for line in done.stderr.splitlines() if line[:7] in ("✓ trial", "= trial")
    ]
    assert sorted(told) == sorted(str(n) for n in after if n not in before)
    tune = Path(opened(file).folder.uri, "tune")
    assert len(list(tune.glob("*"))) <= 1  # of the driver that was killed

    study = opened(file)  # trials are ordinary runs: same keys, and their artifacts are there
    body = study.body()
    for number, record in after.items():
        pipeline = body.pipeline(record["values"], study.config.seed)
        assert record["keys"]["discover"] == [pipeline.nodes["discover"].key], number
        assert pipeline.manifest("discover") is not None
