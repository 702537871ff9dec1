"""Crops per second of a training worker's feed, with one thread and with two.

    python benchmarks/decode_threads.py
    python benchmarks/decode_threads.py --threads 4 --seconds 5

Nothing is trained: parts of 64 crops are taken as fast as they are made, each in two views of
224 px, from JPEGs of 256 px a side that are decoded every time. One thread and several take turns,
round by round; a rate is of the time between the first part taken and the last.

Wall-clock tells the truth on idle cores only. On a busy machine threads queue for a core, several
more than one; the system counts that for each thread (Linux, ``/proc/self/task/<tid>/schedstat``).
So a second rate is given: of the time that is left without the longest such queue, about what idle
cores would have shown. What threads cost one another, by waiting for the interpreter's lock or for
memory, is in both. Beside them: CPU time a crop, and cores in use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from crop_tables import crop_rows, write_crops

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods.crop_batches import CropBatches
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.training.feed import Feed

CROPS, PART, STORED_PX, VIEW_PX = 512, 64, 256, 224
AUGMENT = CropAugmentConfig.model_validate({"blur": 0.5})


@dataclass(frozen=True)
class Rates:
    """Of one round.

    Args:
        wall: crops per second.
        idle: without the time in which threads queued for a core.
        cpu_ms: CPU time a crop, of all threads.
        cores: in use on average.
    """

    wall: float
    idle: float
    cpu_ms: float
    cores: float


def queued_s() -> dict[str, float]:
    """Seconds that each thread of this process has queued for a core so far."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        found[folder.name] = int((folder / "schedstat").read_text().split()[1]) / 1e9
    return found


def measure(batches: CropBatches, threads: int, seconds: float) -> Rates:
    compute = ComputeConfig(runtime="local", decode_threads=threads)
    feed = Feed(batches.batch, [0], compute, torch.device("cpu")).steps(0, 10**9)
    taken, _ = 0, next(feed)
    queued, cpu, began = queued_s(), time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds or taken < 2 * threads:
        next(feed)
        taken += PART
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    waits = [now - queued.get(thread, 0.0) for thread, now in queued_s().items()]
    feed.close()
    idle = max(wall - max(waits), cpu / threads)  # no thread does more than it has CPU time for
    return Rates(taken / wall, taken / idle, 1000 * cpu / taken, cpu / wall)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round, at least")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found: dict[int, list[Rates]] = {1: [], args.threads: []}
    with tempfile.TemporaryDirectory(prefix="gcdis-decode-") as folder:
        crops = write_crops(Path(folder), [crop_rows(CROPS, (STORED_PX, STORED_PX), seed=0)])
        store = CropStore(crops, STORED_PX, budget_mb=0)
        training = TrainingConfig(batch_size=PART, micro_batches=1)
        views = CropViews(store, VIEW_PX, mask_input=False)
        batches = CropBatches(views, store.labels, training, None, AUGMENT, seed=0)
        for _ in range(args.rounds):
            for threads, rates in found.items():
                rates.append(measure(batches, threads, args.seconds))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| threads | crops/s | without queueing | CPU ms a crop | cores in use |")
    print("|---|---|---|---|---|")
    for threads, rates in found.items():
        columns = ("wall", "idle", "cpu_ms", "cores")
        values = [statistics.median(getattr(rate, name) for rate in rates) for name in columns]
        print(f"| {threads} | {values[0]:,.0f} | {values[1]:,.0f} | {values[2]:.2f} | ", end="")
        print(f"{values[3]:.2f} |")
    pairs = list(zip(found[1], found[args.threads], strict=True))
    wall = statistics.median(many.wall / one.wall for one, many in pairs)
    idle = statistics.median(many.idle / one.idle for one, many in pairs)
    print(f"\n{args.threads} threads to one, median of rounds: {wall:.2f}; ", end="")
    print(f"without queueing {idle:.2f}")


if __name__ == "__main__":
    main()
