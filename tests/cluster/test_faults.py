"""Nodes killed in every stage, and the head: the run ends with the very same files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from marked import looks_into_proc
from noticed_training import STEPS
from raylets import BIN, HERE, Cluster, wait_for
from small_run import CONFIG, ROOT, contents, open_pipeline
from staged import NodeKiller, check, drive, metrics, overrides_on, rows
from toy_training import ToyTask, digests, toy_config, toy_plan
from workers import DATA, DATA_STAGES, RANK, TRAINED_STAGES

from gcdis_ray.runtime.local import LocalRuntime

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(3600), looks_into_proc]


def test_a_node_killed_in_every_stage(
    cluster: Cluster, small_run, s3_endpoint: str, tmp_path: Path, record_property
):
    """One for the shards and one for the training of each stage that has them."""
    overrides = overrides_on(s3_endpoint, "every-stage", small_run)
    faults = {*((s, DATA) for s in DATA_STAGES), *((s, RANK) for s in TRAINED_STAGES)}
    without = open_pipeline(overrides).nodes.keys() - DATA_STAGES - TRAINED_STAGES
    killer = NodeKiller(cluster, overrides, faults | {(stage, "") for stage in without})
    drive(cluster, overrides, killer, tmp_path / "log")
    assert {stage for stage, _ in killer.finished} == open_pipeline(overrides).nodes.keys()
    check(killer, overrides, small_run, record_property)


def test_the_head_killed_and_the_job_resubmitted(
    small_run, s3_endpoint: str, tmp_path: Path, record_property
):
    overrides = overrides_on(s3_endpoint, "head", small_run)
    lose_the_head(overrides, "discover", tmp_path)
    assert rows(overrides) == rows(small_run.overrides)
    assert metrics(overrides) == metrics(small_run.overrides)
    assert contents(overrides) == small_run.contents
    record_property("faults", "1 head killed, 1 survived: in the training of discover")


def test_a_node_that_is_told_to_end_loses_nothing(
    cluster: Cluster, tmp_path: Path, record_property
):
    """A checkpoint is written because of the notice, and the training goes on from there."""
    config = toy_config(steps=STEPS)
    local = LocalRuntime(toy_plan(tmp_path / "local").compute)
    expected = digests(local.fit(ToyTask(config), toy_plan(tmp_path / "local"), lambda p: None))
    cluster.have(2)
    out = tmp_path / "out"
    command = [sys.executable, str(HERE / "noticed_training.py"), str(tmp_path / "run")]
    with out.open("w") as file:
        training = subprocess.Popen(
            command, env=cluster.environment | {"RAY_ADDRESS": cluster.address},
            stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def told() -> list[Any]:
        return [json.loads(line) for line in out.read_text().splitlines() if line[:1] in "[{"]

    def steps() -> list[int]:
        return [line[0] for line in told() if isinstance(line, list) and line[1] != "resumed"]

    try:
        wait_for(lambda: steps() and steps()[-1] >= 5, "some steps")
        assert not list((tmp_path / "run").rglob("step-*"))
        at = steps()[-1]
        leaving = cluster.nodes[0]
        leaving.tell_to_end()
        cluster.add()
        assert training.wait(600) == 0, out.read_text()[-5000:]
        wait_for(leaving.has_ended, "the end of the node that was told")
        cluster.kill(leaving)
    finally:
        training.kill()
    resumed = [line[0] for line in told() if isinstance(line, list) and line[1] == "resumed"]
    assert resumed
    assert resumed[-1] >= at
    assert told()[-1] == {"digests": expected}
    record_property("faults", f"1 node told to end at step {at}, resumed from step {resumed[-1]}")


def lose_the_head(overrides: list[str], stage: str, folder: Path) -> None:
    """In the middle of a training, with the driver. Nodes that have lost their head work on while a
    new cluster does; they end by themselves."""
    run = open_pipeline(overrides)
    train = f"{run.nodes[stage].base}/train"
    with Cluster() as old, Cluster() as new:
        old.have(2)
        job = submit(old, overrides, folder / "first")
        try:
            wait_for(
                lambda: any("/step-" in path for path in run.storage.list(train)),
                f"a checkpoint of {stage}", within_s=900,
            )  # fmt: skip
            old.head.kill()
        finally:
            job.kill()
            job.wait()
        assert run.artifact(stage) is None
        new.have(2)
        again = submit(new, overrides, folder / "second")
        try:
            assert again.wait(1800) == 0, (folder / "second").read_text()[-5000:]
        finally:
            again.kill()
        wait_for(lambda: not any(n.processes() for n in old.nodes), "the end of nodes without head")


def submit(cluster: Cluster, overrides: list[str], log: Path) -> subprocess.Popen[str]:
    """As the README says, but for the package: the head sees this checkout."""
    settings = [text for override in overrides for text in ("--set", override)]
    command = [
        str(BIN / "ray"), "job", "submit", "--address", cluster.url, "--",
        "python", str(ROOT / "jobs" / "run.py"), str(CONFIG), *settings,
    ]  # fmt: skip
    with log.open("w") as out:
        return subprocess.Popen(
            command, env=cluster.environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )
