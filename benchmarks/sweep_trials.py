"""Twelve trainings in a sweep, killed in the middle: shows that only what is missing runs again.

    python benchmarks/sweep_trials.py --folder /tmp/sweep-trials

Makes small scenes of handwritten digits and the stages that all trials share, starts the sweep of
``configs/sweep_temperature.yaml`` with short trainings, kills its driver with SIGKILL once five
trials have ended, and starts the same command again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gcdis_ray.data.samples.digits import write_scenes

SWEEP = Path(__file__).parents[1] / "configs" / "sweep_temperature.yaml"
KILL_AFTER = 5  # trials


def overrides(folder: Path, steps: int) -> list[str]:
    return [
        f"storage={folder / 'storage'}",
        f"overrides.stages.ingest.root={folder / 'scenes'}",
        "overrides.stages.ingest.images_per_shard=8",
        "overrides.stages.propose.training.steps=60",
        "overrides.stages.propose.training.batch_size=4",
        "overrides.stages.propose.min_score=0.2",
        "overrides.stages.count.num_novel=5",
        f"overrides.stages.discover.gcdis.training.steps={steps}",
        "overrides.stages.discover.gcdis.training.batch_size=32",
        "overrides.stages.discover.gcdis.discovery.losses.clustering_from=0.2",
        "overrides.stages.discover.gcdis.snapshots_from=0.5",
        "overrides.compute.checkpoint_every_s=2",
        f"hold_out.every={max(1, steps // 10)}",
        f"scheduler.min_steps={max(1, steps // 2)}",
    ]


def records(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted((folder / "storage" / "sweeps").glob("*/trials/*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def checkpoints(folder: Path) -> set[str]:
    """Trainings that have one and are not finished."""
    stages = (folder / "storage" / "discover").glob("*")
    return {
        s.name
        for s in stages
        if list(s.glob("train/*/step-*")) and not (s / "manifest.json").exists()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="empty or new")
    parser.add_argument("--steps", type=int, default=60, help="of each training")
    args = parser.parse_args()
    folder: Path = args.folder.absolute()
    write_scenes(folder / "scenes", num_labeled=16, num_unlabeled=24, num_validation=8)
    sets = [text for item in overrides(folder, args.steps) for text in ("--set", item)]
    command = [sys.executable, "-m", "gcdis_ray.cli", "sweep", str(SWEEP), *sets]
    began = time.perf_counter()
    driver = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while len(records(folder)) < KILL_AFTER and driver.poll() is None:
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before, interrupted = records(folder), checkpoints(folder)
    print(
        f"killed after {time.perf_counter() - began:.0f} s: {len(before)} trials have ended, "
        f"{len(interrupted)} trainings are interrupted with a checkpoint",
        flush=True,
    )
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    after = records(folder)
    again = [number for number in before if after[number] != before[number]]
    states = [record["state"] for record in after.values()]
    print(
        f"second run {time.perf_counter() - began:.0f} s: {len(after) - len(before)} trials ran, "
        f"{len(again)} of the {len(before)} earlier ones again"
    )
    print({state: states.count(state) for state in sorted(set(states))})


if __name__ == "__main__":
    main()
