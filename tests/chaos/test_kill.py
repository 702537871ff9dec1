"""kill -9 of the driver, and of workers, in every stage: the run ends with the very same files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from marked import Mark, looks_into_proc
from small_run import CONFIG, arguments, contents, environment, gcdis, open_pipeline

DYING_RUN = Path(__file__).with_name("dying_run.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_driver_killed_in_every_stage(tmp_path: Path, small_run):
    """A run that dies in each stage in turn, always going on from the run before it."""
    overrides = [*small_run.overrides, f"storage={tmp_path / 'storage'}"]
    for stage in open_pipeline(overrides).nodes:
        died = subprocess.run(
            [sys.executable, str(DYING_RUN), stage, str(CONFIG), *overrides],
            env=environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert died.returncode == -signal.SIGKILL, (stage, died.stderr)
        assert stage not in open_pipeline(overrides).artifacts()
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert "finished earlier" in done.stderr  # of evaluate: its detections
    assert contents(overrides) == small_run.contents


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_with_a_killed_driver_equals_one_process(tmp_path: Path, small_run):
    """Two Ray workers, one kill -9 in the middle of training: the same files, bit for bit."""
    storage = tmp_path / "storage"
    overrides = [*small_run.overrides, f"storage={storage}", "compute.runtime=ray"]
    driver = subprocess.Popen(
        arguments("run", overrides), stderr=subprocess.DEVNULL, env=environment()
    )
    while driver.poll() is None and not has_checkpoint(storage / "discover"):
        time.sleep(0.05)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL  # it was not over yet
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == small_run.contents


def has_checkpoint(stage: Path) -> bool:
    return any(stage.glob("*/train/*/step-*"))


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
        return kind == DATA or has_checkpoint(self.storage / stage)


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
        if (words := line.split()) and words[0] in small_run.contents:
            killer.stage = words[0]
    killer.stage = "over"
    assert driver.wait() == 0, "".join(lines)
    assert {stage for stage, kind in killer.killed if kind == RANK} == TRAINED_STAGES
    assert {stage for stage, kind in killer.killed if kind == DATA} == DATA_STAGES
    assert contents(overrides) == small_run.contents
