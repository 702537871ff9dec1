"""Crops per second of a training worker's feed, with one thread and with two.

    python benchmarks/decode_threads.py
    python benchmarks/decode_threads.py --threads 4 --seconds 5
    python benchmarks/decode_threads.py --render

Nothing is trained: parts of 64 crops are taken as fast as they are made. A part is decoded from
JPEGs of 256 px a side: all that is left to cores where a GPU renders the views; with ``--render``
they are rendered here, two of 224 px of each crop. One thread and several take turns, round by
round; a rate is of the time between the first part taken and the last.

Wall-clock tells the truth on idle cores only; *cores in use* says how far it can be trusted: what
several threads need is there, or it is not. A busy machine does not disturb the last figure as
much: the share of one thread's CPU time that is spent in OpenCV, which lets other threads run
meanwhile. What is left may hold the interpreter's lock (some of it does not), and threads cannot be
faster than it is in a row: that bounds what they gain, but for memory and caches that they share.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

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
OPENCV = ("imdecode", "resize", "transform", "merge", "flip", "split", "threshold", "GaussianBlur")
Make = Callable[[int, int], Any]
AUGMENT = CropAugmentConfig.model_validate({"blur": 0.5})


@dataclass(frozen=True)
class Rates:
    """Of one round.

    Args:
        wall: crops per second.
        cpu_ms: CPU time a crop, of all threads.
        cores: in use on average.
    """

    wall: float
    cpu_ms: float
    cores: float


def measure(make: Make, threads: int, seconds: float) -> Rates:
    compute = ComputeConfig(runtime="local", decode_threads=threads)
    feed = Feed(make, [0], compute, torch.device("cpu")).steps(0, 10**9)
    taken, _ = 0, next(feed)
    cpu, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds or taken < 2 * threads:
        next(feed)
        taken += PART
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    feed.close()
    return Rates(taken / wall, 1000 * cpu / taken, cpu / wall)


def share_in_opencv(make: Make, steps: int) -> float:
    """Of the CPU time of this thread, making the parts of so many steps."""
    inside = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                inside += time.thread_time() - began

        return timed_call

    with ExitStack() as patches:
        for name in OPENCV:
            patches.enter_context(mock.patch.object(cv2, name, timed(getattr(cv2, name))))
        began = time.thread_time()
        for step in range(steps):
            make(step, 0)
        return inside / (time.thread_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--render", action="store_true", help="views are rendered here, too")
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
        make = batches.batch
        if not args.render:
            make = lambda step, part: store.get(batches.sampler.crops(step, part))  # noqa: E731
        share = share_in_opencv(make, 8)
        for _ in range(args.rounds):
            for threads, rates in found.items():
                rates.append(measure(make, threads, args.seconds))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| threads | crops/s | CPU ms a crop | cores in use |")
    print("|---|---|---|---|")
    for threads, rates in found.items():
        columns = ("wall", "cpu_ms", "cores")
        values = [statistics.median(getattr(rate, name) for rate in rates) for name in columns]
        print(f"| {threads} | {values[0]:,.0f} | {values[1]:.2f} | {values[2]:.2f} |")
    pairs = list(zip(found[1], found[args.threads], strict=True))
    ratios = sorted(many.wall / one.wall for one, many in pairs)
    print(f"\n{args.threads} threads to one, by rounds: ", end="")
    print(", ".join(f"{ratio:.2f}" for ratio in ratios))
    most = 1 / max(1 - share, 1 / args.threads)
    print(f"{share:.0%} of the CPU time is in OpenCV: by the interpreter's lock ", end="")
    print(f"{args.threads} threads on idle cores could be {most:.2f} times as fast")


if __name__ == "__main__":
    main()
