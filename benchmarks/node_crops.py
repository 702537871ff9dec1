"""Crops at hand for the workers of one node: disk, memory and bytes read, for 1, 2 and 4 workers.

    python benchmarks/node_crops.py
    python benchmarks/node_crops.py --crops 200000 --cache-mb 2000

Each worker is a process of its own that opens the crops as training does and draws batches from
them. Memory is the sum over workers of PSS: pages that several map count once. Disk is what the
file system of the temporary folder has less while all are open. "apart" gives each worker a
temporary folder of its own, so that none finds another's rows: what it would be without sharing.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from crop_tables import crop_rows, read_crops, write_crops

from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.store.meter import metering

FILES, ROWS_PER_FILE, SIDE_PX, BATCHES = 4, 2000, 40, 200


def _pss_mb() -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def work(folder: str, num_crops: int, cache_mb: int) -> None:
    """A worker: says what it has read and how long it took, then, asked, what memory it takes."""
    crops = read_crops(Path(folder), num_crops // (FILES * ROWS_PER_FILE))
    before, began = _pss_mb(), time.perf_counter()
    with metering() as meter:
        store = CropStore(crops, SIDE_PX, cache_mb)
    told = {"read_mb": meter.read_bytes / 1e6, "s": time.perf_counter() - began}
    rng = np.random.default_rng(os.getpid())
    for _ in range(BATCHES):
        store.get(torch.from_numpy(rng.integers(0, num_crops, 256)))
    print(json.dumps(told), flush=True)
    sys.stdin.readline()
    print(json.dumps({"pss_mb": _pss_mb() - before}), flush=True)
    sys.stdin.readline()


def measure(
    folder: str, num_crops: int, cache_mb: int, workers: int, apart: bool
) -> dict[str, float]:
    def free_mb() -> float:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize / 1e6

    before, processes = free_mb(), []
    for number in range(workers):
        place = Path(folder, f"tmp-{number if apart else 0}")
        place.mkdir(exist_ok=True)
        command = [sys.executable, __file__, "--worker", folder, str(num_crops), str(cache_mb)]
        processes.append(
            subprocess.Popen(
                command, env={**os.environ, "TMPDIR": str(place)}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip

    def said() -> list[dict[str, float]]:
        return [json.loads(process.stdout.readline()) for process in processes]

    def go_on() -> None:
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()

    told, disk_mb = said(), before - free_mb()
    go_on()
    memory = said()
    go_on()
    for process in processes:
        process.wait()
    return {
        "disk_mb": disk_mb,
        "pss_mb": sum(one["pss_mb"] for one in memory),
        "read_mb": sum(one["read_mb"] for one in told),
        "s": max(one["s"] for one in told),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--crops", type=int, default=400_000)
    parser.add_argument("--cache-mb", type=int, nargs="+", default=[0, 4000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], int(args.worker[1]), int(args.worker[2]))
        return
    with tempfile.TemporaryDirectory(prefix="gcdis-node-") as folder:
        shards = [crop_rows(ROWS_PER_FILE, (16, 32), seed) for seed in range(FILES)]
        write_crops(Path(folder), shards)
        print("| cache_mb | workers | | disk MB | memory MB | read MB | s to open |")
        print("|---|---|---|---|---|---|---|")
        for cache_mb in args.cache_mb:
            for workers in args.workers:
                for how in ("shared", "apart") if workers > 1 else ("shared",):
                    r = measure(folder, args.crops, cache_mb, workers, how == "apart")
                    print(
                        f"| {cache_mb} | {workers} | {how} | {r['disk_mb']:,.0f} "
                        f"| {r['pss_mb']:,.0f} | {r['read_mb']:,.0f} | {r['s']:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
