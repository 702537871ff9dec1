"""Runs a config once per seed, from nothing, and prints scores, seconds and peak memory.

    python benchmarks/run.py configs/quickstart.yaml --seeds 0 1 2
    python benchmarks/run.py configs/coco_folder.yaml --set stages.ingest.root=/data/coco

Memory is the sum over all processes of a run, Ray's included, of their proportional share (PSS): a
page that several of them map is counted once. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from threading import Thread
from typing import Any

METRICS = (
    ("discovery", "accuracy"),
    ("discovery", "found_and_sorted"),
    ("discovery", "ss_kmeans_accuracy"),
    ("discovery", "kmeans_accuracy"),
    ("detection", "mask_ap"),
)
PARTS = ("all", "known", "novel")
MARK = "GCDIS_BENCHMARK"


class PeakMemory(Thread):
    """Watches every process with the mark in its environment. Reading a large process's pages costs
    some milliseconds, so it looks every other second."""

    def __init__(self, mark: str, every_s: float = 2.0) -> None:
        super().__init__(daemon=True)
        self._mark, self._every_s = f"{MARK}={mark}".encode(), every_s
        self.stage, self.peak_bytes = "", dict[str, int]()
        self.over = False

    def run(self) -> None:
        while not self.over:
            total = sum(self._share(folder) for folder in Path("/proc").glob("[0-9]*"))
            self.peak_bytes[self.stage] = max(total, self.peak_bytes.get(self.stage, 0))
            time.sleep(self._every_s)

    def _share(self, folder: Path) -> int:
        try:
            if self._mark not in (folder / "environ").read_bytes():
                return 0
            found = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.M)
        except OSError:  # it has ended
            return 0
        return int(found[1]) * 1024 if found else 0


def run_once(config: str, overrides: list[str], seed: int, folder: str) -> dict[str, Any]:
    """One run into ``folder``: its metrics, wall seconds and peak bytes per stage."""
    sets = [f"seed={seed}", f"storage={folder}/seed-{seed}", *overrides]
    arguments = [config, *(text for item in sets for text in ("--set", item))]
    gcdis = [sys.executable, "-m", "gcdis_ray.cli"]
    mark = uuid.uuid4().hex
    memory = PeakMemory(mark)
    memory.start()
    began = time.perf_counter()
    process = subprocess.Popen(
        [*gcdis, "run", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {MARK: mark},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        if started := re.match(r"  ([a-z_]+) ", line):
            memory.stage = started[1]
    if process.wait():
        raise SystemExit(f"seed {seed} failed with status {process.returncode}")
    seconds = time.perf_counter() - began
    memory.over = True
    status = subprocess.run(
        [*gcdis, "status", *arguments, "--json"], capture_output=True, text=True, check=True
    )
    return dict(
        metrics=json.loads(status.stdout)["metrics"], seconds=seconds, peak=memory.peak_bytes
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gcdis-benchmark-") as folder:
        runs = [run_once(args.config, args.set, seed, folder) for seed in args.seeds]
    print(f"{'seeds ' + ' '.join(map(str, args.seeds)):<28} {'each':<30} median")
    for section, name in METRICS:
        for part in PARTS:
            values = [run["metrics"][section][name][part] for run in runs]
            if None not in values:
                _print_row(f"{name} {part}", values, "{:.3f}")
    _print_row("class count", [run["metrics"]["class_count"]["estimate"] for run in runs], "{:.0f}")
    _print_row("seconds", [run["seconds"] for run in runs], "{:.0f}")
    _print_row("peak memory, GiB", [max(run["peak"].values()) / 2**30 for run in runs], "{:.2f}")
    for stage in runs[0]["peak"]:
        if stage:
            _print_row(f"  {stage}", [run["peak"].get(stage, 0) / 2**30 for run in runs], "{:.2f}")


def _print_row(name: str, values: list[float], form: str) -> None:
    each = "  ".join(form.format(value) for value in values)
    print(f"{name:<28} {each:<30} {form.format(statistics.median(values))}")


if __name__ == "__main__":
    main()
