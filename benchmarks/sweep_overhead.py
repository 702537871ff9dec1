"""What Ray's tasks cost a sweep of clusterings, against the same work spread over cores by hand.

    python benchmarks/sweep_overhead.py                     # 500 numbers of classes, 3 seeds
    python benchmarks/sweep_overhead.py --counts 100 --repeats 5

The hand-made way is a pool of one process per core that already holds the points and takes one
clustering at a time. Both ways run in turn on one set of synthetic embeddings, both with their
workers warm, and the medians of the paired times are compared: the ratio should be at most 1.3.
The time to start either is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from gcdis_ray.clustering.class_count.clustered import Clustering
from gcdis_ray.clustering.class_count.points import CountSettings, Points, prepare
from gcdis_ray.config import ComputeConfig
from gcdis_ray.sweeps.probes import CALLS_PER_TASK, measure_all

_held: dict[int, Points] = {}  # of a process of the pool


def synthetic(num_points: int, num_classes: int, dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds of points (N, D) and their labels; four in five points, and half of the classes,
    have none."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(num_classes, dims, generator=generator)
    classes = torch.randint(num_classes, (num_points,), generator=generator)
    noise = 0.7 * torch.randn(num_points, dims, generator=generator)
    points = torch.nn.functional.normalize(centers[classes] + noise, dim=1)
    hidden = torch.rand(num_points, generator=generator) < 0.8
    labels = torch.where(hidden | (classes >= num_classes // 2), -1, classes)
    return points, labels


def _hold(points: dict[int, Points]) -> None:
    torch.set_num_threads(1)
    _held.update(points)


def _by_hand(item: tuple[int, Clustering]) -> Any:
    return measure_all(_held[item[0]], [item[1]])[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", type=int, default=500, help="numbers of clusters: 2, 3, ...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args(arguments)
    cores = len(os.sched_getaffinity(0))
    embeddings, labels = synthetic(args.points, 40, 128)
    settings = CountSettings(n_init=1)
    points = {seed: prepare(embeddings, labels, settings, seed) for seed in range(args.seeds)}
    counts = range(args.counts + 1, 1, -1)  # longest first, as in a sweep
    calls = [(seed, Clustering(count, settings, seed)) for count in counts for seed in points]
    print(f"{len(calls)} clusterings of {args.points} points, {cores} cores")

    began = time.perf_counter()
    pool = ProcessPoolExecutor(cores, initializer=_hold, initargs=(points,))
    list(pool.map(_by_hand, calls[-cores * 4 :]))
    print(f"start by hand {time.perf_counter() - began:6.1f} s")
    began = time.perf_counter()
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    runtime = RayRuntime(ComputeConfig(num_cpus=cores))
    from gcdis_ray.runtime.ray_tune import run_tasks

    list(run_tasks(measure_all, points, calls[-cores * 16 :], CALLS_PER_TASK))
    print(f"start of Ray  {time.perf_counter() - began:6.1f} s")
    ratios = []
    for repeat in range(args.repeats):
        seconds, results = {}, {}
        for way in ("hand", "ray") if repeat % 2 == 0 else ("ray", "hand"):
            began = time.perf_counter()
            if way == "hand":
                results[way] = dict(enumerate(pool.map(_by_hand, calls)))
            else:
                results[way] = dict(run_tasks(measure_all, points, calls, CALLS_PER_TASK))
            seconds[way] = time.perf_counter() - began
        assert results["hand"] == results["ray"], "the two ways disagree"
        ratios.append(seconds["ray"] / seconds["hand"])
        print(
            f"by hand {seconds['hand']:7.1f} s   tasks {seconds['ray']:7.1f} s   {ratios[-1]:.3f}"
        )
    runtime.close()
    pool.shutdown()
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.3f} (at most 1.3: {'yes' if ratio <= 1.3 else 'NO'}); equal results")


if __name__ == "__main__":
    main()
