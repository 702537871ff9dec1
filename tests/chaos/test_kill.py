"""kill -9 of the driver in every stage: the same command goes on, and nothing differs."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
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
