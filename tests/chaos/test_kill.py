"""kill -9 of the driver, and of workers, in every stage: the run ends with the very same files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from marked import Mark, looks_into_proc
from small_run import CONFIG, arguments, contents, environment, gcdis, open_pipeline, program
from workers import DATA, DATA_STAGES, RANK, TRAINED_STAGES, kind_of

DYING_RUN = Path(__file__).with_name("dying_run.py")


@pytest.mark.thorough
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


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_driver_killed_at_any_moment_again_and_again(tmp_path: Path, small_run, seed: int):
    """Every run may live a little longer than the ones before, so that one gets through."""
    overrides = [*small_run.overrides, f"storage={tmp_path / 'storage'}"]
    draw, longest_s = random.Random(seed), 10.0
    while True:
        driver = subprocess.Popen(
            program(arguments("run", overrides)), env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, printed = driver.communicate(timeout=draw.uniform(0, longest_s))
            break
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.communicate()
            longest_s += 5
    assert driver.returncode == 0, printed
    assert contents(overrides) == small_run.contents


def has_checkpoint(stage: Path) -> bool:
    return any(stage.glob("*/train/*/step-*"))


class Killer(threading.Thread):
    """Kills one worker of each kind in each stage, a rank once a checkpoint is there, and with the
    rank in ``discover`` the driver, too."""

    def __init__(self, mark: Mark, storage: Path) -> None:
        super().__init__(daemon=True)
        self.mark, self.storage = mark, storage
        self.stage, self.driver = "", 0
        self.first_seen: dict[int, str] = {}  # process -> stage: not what an earlier one left over
        self.killed: set[tuple[str, str]] = set()

    def run(self) -> None:
        while self.stage != "over":
            stage = self.stage
            for pid, command in self.mark.processes().items():
                kind = kind_of(command)
                if not kind or self.first_seen.setdefault(pid, stage) != stage:
                    continue
                if (stage, kind) not in self.killed and self._at_work(stage, kind):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.add((stage, kind))
                    if (stage, kind) == ("discover", RANK):
                        os.kill(self.driver, signal.SIGKILL)
            time.sleep(0.02)

    def _at_work(self, stage: str, kind: str) -> bool:
        return kind == DATA or has_checkpoint(self.storage / stage)

    def watch(self, overrides: list[str]) -> tuple[int, str]:
        """Runs to the end or death: status and what it printed."""
        driver = subprocess.Popen(
            program(arguments("run", overrides)),
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | self.mark.variable,
        )
        self.driver = driver.pid
        assert driver.stderr is not None
        lines = []
        for line in driver.stderr:
            lines.append(line)
            words = line.split()
            if len(words) > 1 and words[0] in (*DATA_STAGES, *TRAINED_STAGES):
                self.stage = words[0]
        return driver.wait(), "".join(lines)


@looks_into_proc
@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_workers_and_driver_killed_on_ray(tmp_path: Path, small_run):
    """Two Ray workers, a kill -9 in every stage, the driver's in the middle of training: the same
    files as of one process that nothing happened to, bit for bit."""
    storage = tmp_path / "storage"
    overrides = [*small_run.overrides, f"storage={storage}", "compute.runtime=ray"]
    killer = Killer(Mark("workers"), storage)
    killer.start()
    status, printed = killer.watch(overrides)
    assert status == -signal.SIGKILL, printed
    status, printed = killer.watch(overrides)
    killer.stage = "over"
    assert status == 0, printed
    assert {stage for stage, kind in killer.killed if kind == RANK} == TRAINED_STAGES
    # an actor of the stage before may still be on its way out: killing it must do no harm either
    assert {stage for stage, kind in killer.killed if kind == DATA} >= DATA_STAGES
    assert contents(overrides) == small_run.contents
