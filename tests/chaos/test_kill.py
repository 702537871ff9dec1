"""kill -9 of the driver in every stage: the same command goes on, and nothing differs."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from small_run import arguments, contents, environment, gcdis, small_overrides

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
def test_driver_killed_in_every_stage(tmp_path: Path):
    quiet, rough = tmp_path / "quiet", tmp_path / "rough"
    quiet.mkdir()
    overrides = small_overrides(quiet)
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    expected = contents(overrides)
    assert set(expected) == set(STAGES)

    rough.mkdir()
    overrides = [*overrides, f"storage={rough / 'storage'}"]
    killed = [
        stage
        for stage in STAGES
        if _kill_in(stage, overrides, {"propose": 8, "discover": 6, "segment": 6}.get(stage, 0.02))
    ]
    assert {"ingest", "propose", "discover", "segment", "evaluate"} <= set(killed)
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == expected
