"""kill -9 of the driver, and of workers, in every stage: the run ends with the very same files."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from marked import Mark, looks_into_proc
from small_run import arguments, contents, environment, gcdis

STAGES = (
    "ingest",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "label",
    "segment",
    "ground_truth",
    "evaluate",
)

SECONDS_IN = {"propose": 6, "discover": 3, "segment": 0.7}  # after its start, before the kill


def _kill_in(stage: str, overrides: list[str], after_s: float) -> bool:
    """Run until ``stage`` starts, then kill -9. False if the stage was over before that."""
    driver = subprocess.Popen(
        arguments("run", overrides), stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert driver.stderr is not None
    watchdog = threading.Timer(240, driver.kill)
    watchdog.start()
    try:
        for line in driver.stderr:
            if line.startswith(f"  {stage} "):
                time.sleep(after_s)
                driver.send_signal(signal.SIGKILL)
                break
        driver.stderr.close()
        return driver.wait() == -signal.SIGKILL
    finally:
        watchdog.cancel()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_driver_killed_in_every_stage(tmp_path: Path, small_run):
    overrides = [*small_run.overrides, f"storage={tmp_path / 'storage'}"]
    assert set(small_run.contents) == set(STAGES)
    killed = [stage for stage in STAGES if _kill_in(stage, overrides, SECONDS_IN.get(stage, 0.02))]
    assert {"ingest", "propose", "discover", "segment"} <= set(killed)
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == small_run.contents


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_with_a_killed_driver_equals_one_process(tmp_path: Path, small_run):
    """Two Ray workers, one kill -9 in the middle of training: the same files, bit for bit."""
    overrides = [*small_run.overrides, f"storage={tmp_path / 'storage'}", "compute.runtime=ray"]
    assert _kill_in("discover", overrides, 15)
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == small_run.contents


# Workers as their command lines name them: actors of data steps, ranks of trainings.
DATA, RANK = "ShardWorker", "RayTrainWorker"
DATA_STAGES = {"ingest", "propose", "crop", "embed", "discover", "label", "evaluate"}
TRAINED_STAGES = {"propose", "discover", "segment"}


class WorkerKiller(threading.Thread):
    """Kills one worker of each kind in each stage, a rank once a checkpoint is there."""

    def __init__(self, mark: Mark, storage: Path) -> None:
        super().__init__(daemon=True)
        self.mark, self.storage = mark, storage
        self.stage = ""
        self.first_seen: dict[int, str] = {}  # process -> stage: not what an earlier one left over
        self.killed: set[tuple[str, str]] = set()

    def run(self) -> None:
        while self.stage != "over":
            stage = self.stage
            for pid, command in self.mark.processes().items():
                kind = next((kind for kind in (DATA, RANK) if kind in command.split(" ")[0]), "")
                if not kind or self.first_seen.setdefault(pid, stage) != stage:
                    continue
                if (stage, kind) not in self.killed and self._at_work(stage, kind):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.add((stage, kind))
            time.sleep(0.02)

    def _at_work(self, stage: str, kind: str) -> bool:
        return kind == DATA or any((self.storage / stage).glob("*/train/*/step-*"))


@looks_into_proc
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_killed_in_every_stage(tmp_path: Path, small_run):
    storage, mark = tmp_path / "storage", Mark("workers")
    overrides = [*small_run.overrides, f"storage={storage}", "compute.runtime=ray"]
    killer = WorkerKiller(mark, storage)
    driver = subprocess.Popen(
        arguments("run", overrides),
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | mark.variable,
    )
    killer.start()
    assert driver.stderr is not None
    lines = []
    for line in driver.stderr:
        lines.append(line)
        if (words := line.split()) and words[0] in STAGES:
            killer.stage = words[0]
    killer.stage = "over"
    assert driver.wait() == 0, "".join(lines)
    assert {stage for stage, kind in killer.killed if kind == RANK} == TRAINED_STAGES
    assert {stage for stage, kind in killer.killed if kind == DATA} == DATA_STAGES
    assert contents(overrides) == small_run.contents
