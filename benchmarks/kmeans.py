"""Semi-supervised k-means: against the published algorithm, and on up to a million points.

    python benchmarks/kmeans.py                      # both tables, about ten minutes
    python benchmarks/kmeans.py --rounds 5 --points  # the comparison only
    python benchmarks/kmeans.py --rounds 0           # size, time and memory only

The published algorithm (Vaze et al. 2022, Generalized Category Discovery) is written here anew from
its description, with the same cost: every distance is a broadcast difference, 1,024 points at a
time; k-means++ computes the distances to all centers again for each new one; labels are set point
by point and means taken cluster by cluster in Python. The shape is that of CUB-200: half of the
classes known, half of their points labeled, unit vectors.

Contestants run in turn in one process, on one thread; times are CPU seconds, ratios medians of
round-by-round ratios. Both do the same number of starts and at most the same number of
iterations. Inertia is computed from the clusters by one function for both.

For the second table each figure is of a process of its own, with the iterations bounded. Memory is
the peak resident set above what the process holds before, points included. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.kmeans import Backend, kmeans, means

DIMS, BATCH, NOISE = 256, 1024, 0.05
T = TypeVar("T")


def unit_points(num_points: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Points around random directions, and labels: -1, or the class for half of the points of the
    first half of the classes."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(num_classes, DIMS, generator=generator), dim=1)
    classes = torch.randint(num_classes, (num_points,), generator=generator)
    points = torch.empty(num_points, DIMS)
    for some in torch.arange(num_points).split(10_000):
        noise = NOISE * torch.randn(len(some), DIMS, generator=generator)
        points[some] = F.normalize(directions[classes[some]] + noise, dim=1)
    told = (classes < num_classes // 2) & (torch.rand(num_points, generator=generator) < 0.5)
    return points, torch.where(told, classes, -1)


# ------------------------------------------------------------ the published algorithm


def broadcast_distances(points: Tensor, centers: Tensor) -> Tensor:
    found = torch.zeros(len(points), len(centers))
    for rows in torch.arange(len(points)).split(BATCH):
        found[rows] = ((points[rows].unsqueeze(1) - centers.unsqueeze(0)) ** 2).sum(dim=-1)
    return found


def published_start(points: Tensor, labels: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Means of labeled classes, then k-means++ with one draw a center."""
    generator = torch.Generator().manual_seed(seed)
    known = range(int(labels.max()) + 1)
    centers = torch.stack([points[labels == c].mean(dim=0) for c in known])
    unlabeled = points[labels < 0]
    while len(centers) < num_clusters:
        closest = broadcast_distances(unlabeled, centers).min(dim=1).values
        chance = (closest / closest.sum()).cumsum(dim=0)
        reached = torch.nonzero(chance >= torch.rand(1, generator=generator))
        chosen = int(reached[0]) if len(reached) else len(unlabeled) - 1
        centers = torch.cat([centers, unlabeled[chosen : chosen + 1]])
    return centers


def published_lloyd(
    points: Tensor, labels: Tensor, centers: Tensor, max_iterations: int
) -> tuple[Tensor, Tensor, int]:
    """Clusters of least inertia, their centers, iterations. Stops where no center moves."""
    told, untold = torch.nonzero(labels >= 0)[:, 0], torch.nonzero(labels < 0)[:, 0]
    ordered = torch.cat([points[told], points[untold]])
    clusters = torch.full((len(points),), -1)
    for place, row in enumerate(told):
        clusters[place] = int(labels[row])
    centers = centers.clone()
    least, best = None, (clusters, centers)
    iteration = 0
    while iteration < max_iterations:
        iteration += 1
        before = centers.clone()
        distance, clusters[len(told) :] = broadcast_distances(points[untold], centers).min(dim=1)
        held = ((points[told] - centers[clusters[: len(told)]]) ** 2).sum()
        inertia = float(distance.sum() + held)
        for k in range(len(centers)):
            centers[k] = ordered[torch.nonzero(clusters == k)[:, 0]].mean(dim=0)
        if least is None or inertia < least:
            least, best = inertia, (clusters.clone(), centers.clone())
        if not float((centers - before).norm(dim=1).sum()) ** 2 > 0:
            break
    back = torch.empty_like(clusters)
    back[torch.cat([told, untold])] = best[0]
    return back, best[1], iteration


# ------------------------------------------------------------ comparison


def timed(action: Callable[[], T]) -> tuple[T, float]:
    before = time.process_time()
    found = action()
    return found, time.process_time() - before


def inertia_of(points: Tensor, clusters: Tensor, num_clusters: int) -> float:
    wide = points.double()
    return float(((wide - means(wide, clusters, num_clusters)[0][clusters]) ** 2).sum())


def compare(num_points: int, num_clusters: int, iterations: int, rounds: int) -> None:
    points, labels = unit_points(num_points, num_clusters)
    print(
        f"{num_points} x {DIMS}, K = {num_clusters}, {int((labels >= 0).sum())} labeled; 1 start, "
        f"at most {iterations} iterations; {rounds} rounds, load {os.getloadavg()[0]:.0f}"
    )

    def ours(seed: int, start: Tensor | None, backend: Backend = "torch", most: int = iterations):
        return kmeans(
            points,
            num_clusters,
            torch.Generator().manual_seed(seed),
            labels_N=labels,
            start_KD=start,
            max_iterations=most,
            tolerance=0,
            backend=backend,
        )

    for warm in ("torch", "faiss"):  # first calls load and allocate
        ours(0, None, warm)
    seen: dict[str, list[float]] = {}
    note = lambda name, value: seen.setdefault(name, []).append(value)  # noqa: E731
    for seed in range(rounds):
        start, start_s = timed(lambda s=seed: published_start(points, labels, num_clusters, s))
        (clusters, centers, count), lloyd_s = timed(
            lambda c=start: published_lloyd(points, labels, c, iterations)
        )
        note("published: start", start_s)
        note("published: iteration", lloyd_s / count)
        note("published: all", start_s + lloyd_s)
        note("published: iterations", count)
        theirs = inertia_of(points, clusters, num_clusters)
        backends: tuple[Backend, ...] = ("torch", "faiss")
        for backend in backends:
            found, all_s = timed(lambda s=seed, b=backend: ours(s, None, b))
            same, same_s = timed(lambda c=start, b=backend, n=count: ours(0, c, b, n))
            note(f"{backend}: all", all_s)
            note(f"{backend}: iterations", found.num_iterations)
            note(f"{backend}: same start", same_s)
            note(f"{backend}: times faster, all", (start_s + lloyd_s) / all_s)
            note(f"{backend}: times faster, same start", lloyd_s / same_s)
            mine = inertia_of(points, found.cluster_N, num_clusters)
            note(f"{backend}: inertia / published", mine / theirs)
            note(f"{backend}: largest difference of a center, same start",
                 float((same.centers_KD - centers).abs().max()))  # fmt: skip
            note(f"{backend}: points in other clusters, same start",
                 int((same.cluster_N != clusters).sum()))  # fmt: skip
    print("| figure | median | least | most |\n|---|---|---|---|")
    for name, values in sorted(seen.items()):
        shown = [statistics.median(values), min(values), max(values)]
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in shown) + " |", flush=True)


# ------------------------------------------------------------ size


def _status_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


def measure(num_points: int, num_clusters: int, backend: Backend, iterations: int) -> Any:
    """Seconds and memory of one run in this process."""
    one_thread()
    warm, warm_labels = unit_points(2000, 20)
    kmeans(warm, 20, torch.Generator().manual_seed(0), labels_N=warm_labels, backend=backend)
    points, labels = unit_points(num_points, num_clusters)
    ctypes.CDLL(None).malloc_trim(0)
    held_mb = _status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, cpu = time.perf_counter(), time.process_time()
    found = kmeans(
        points,
        num_clusters,
        torch.Generator().manual_seed(0),
        labels_N=labels,
        max_iterations=iterations,
        tolerance=0,
        backend=backend,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak_mb = _status_mb("VmHWM") - held_mb
    return {
        "cpu_s": cpu,
        "wall_s": wall,
        "peak_mb": peak_mb,
        "points_mb": points.numel() * 4 / 1e6,
        "inertia": found.inertia,
    }


def one_thread() -> None:
    import faiss

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def sizes(points: list[int], clusters: list[int], iterations: int) -> None:
    print("| points | K | backend | CPU s | wall s | peak MB beside points | of points | inertia |")
    print("|---|---|---|---|---|---|---|---|")
    for num_points in points:
        for num_clusters in clusters:
            for backend in ("torch", "faiss"):
                one = [str(n) for n in (num_points, num_clusters, backend, iterations)]
                done = subprocess.run(
                    [sys.executable, __file__, "--one", *one],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {num_points:,} | {num_clusters} | {backend} | {found['cpu_s']:.1f} | "
                    f"{found['wall_s']:.1f} | {found['peak_mb']:.0f} | "
                    f"{found['peak_mb'] / found['points_mb']:.2f} | {found['inertia']:.1f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison; 0: none")
    parser.add_argument("--compared", type=int, default=5000, help="points of the comparison")
    parser.add_argument("--compared-clusters", type=int, default=200)
    parser.add_argument("--compared-iterations", type=int, default=10)
    parser.add_argument("--points", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--clusters", type=int, nargs="*", default=[200, 1000])
    parser.add_argument("--iterations", type=int, default=2, help="of the runs by size")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        points, clusters, backend, iterations = arguments.one
        print(json.dumps(measure(int(points), int(clusters), backend, int(iterations))))
        return
    one_thread()
    if arguments.rounds:
        compare(
            arguments.compared,
            arguments.compared_clusters,
            arguments.compared_iterations,
            arguments.rounds,
        )
    if arguments.points:
        sizes(arguments.points, arguments.clusters, arguments.iterations)


if __name__ == "__main__":
    main()
