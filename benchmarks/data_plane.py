"""How fast crops are cut from image shards, and what Ray Data leaves of it.

    python benchmarks/data_plane.py
    python benchmarks/data_plane.py --ray

Synthetic photographs of 640 x 480 px (JPEG, quality 90, about 165 kB) with 8 objects each, of 20 to
300 px a side, in shards as ingest writes them. One thread, CPU seconds, rounds in which all take
turns: the JPEG decoder alone; the crop stage's function for a shard (decode, boxes, masks, resize,
encode); the same with the shard read before, checked and written after, as a worker does. The
decoder's own rate is the measure of the machine at that moment: compare shares.

``--ray``: the same shards in full by two plain processes and by Ray Data with two workers, in turn,
in wall-clock from the first finished shard to the last, since start-up is paid once a stage. Every
way has to give the same bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scene_shards import OBJECTS, write_scenes

from gcdis_ray.config import ComputeConfig
from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.run.attempt import Attempt, GroupWriter
from gcdis_ray.runtime.base import ShardRecord
from gcdis_ray.runtime.local import run_shard
from gcdis_ray.stages.crop import Config, CropShard
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.storage import LocalStorage

PER_SHARD = 32
HELD: dict[str, Any] = {}  # of a plain process
TASK = CropShard(Config.model_validate({}), ImageFiles())


def arguments(num_shards: int) -> list[dict[str, Any]]:
    return [{"first_crop": OBJECTS * PER_SHARD * index} for index in range(num_shards)]


def new_writer(folder: str) -> GroupWriter:
    attempt = Attempt(LocalStorage(folder), "crop/bench", f"attempt-{uuid.uuid4().hex[:12]}")
    return GroupWriter(attempt, ("crops",), "crops")


def one_core(tables: Sequence[Table], folder: str, rounds: int) -> None:
    shard = [table.shard(0) for table in tables]
    files = [np.frombuffer(data, np.uint8) for data in shard[0]["bytes"].to_pylist()]
    size = sum(map(len, files)) / len(files) / 1000
    print(f"{len(files)} images of {size:.0f} kB, {OBJECTS} objects each; CPU ms an image:")

    def decode() -> None:
        for data in files:
            cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)

    ways: dict[str, Callable[[], object]] = {
        "decode": decode,
        "cut": lambda: TASK.cut(0, *shard, first_crop=0),
        "read, cut, write": lambda: run_shard(
            TASK.open("cpu"), tables, arguments(1), 0, new_writer(folder)
        ),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            took[name].append((time.process_time() - began) / len(files))
    for name, each in took.items():
        middle, best = statistics.median(each), min(each)
        share = statistics.median(d / t for d, t in zip(took["decode"], each, strict=True))
        rates = f"{1 / middle:5.0f} ({1 / best:.0f}) images a second"
        print(
            f"{name:18} {1000 * middle:6.2f} ({1000 * best:.2f})  {rates}  "
            f"{share:.2f} of decoding alone"
        )


def start(tables: Sequence[Table], writer: GroupWriter) -> None:
    """What a plain process holds."""
    cv2.setNumThreads(1)
    HELD.update(run=TASK.open("cpu"), tables=tables, writer=writer)


def one_shard(index: int) -> ShardRecord:
    tables = HELD["tables"]
    every = arguments(tables[0].num_shards)
    return run_shard(HELD["run"], tables, every, index, HELD["writer"])


def plain(tables: Sequence[Table], folder: str, workers: int) -> tuple[float, list[ShardRecord]]:
    """Processes that take the next shard when they are done with one."""
    context, given = multiprocessing.get_context("spawn"), (tables, new_writer(folder))
    with context.Pool(workers, start, given) as pool:
        records = list(pool.imap_unordered(one_shard, range(tables[0].num_shards)))
    return seconds(folder, records), records


def on_ray(runtime: Any, tables: Sequence[Table], folder: str) -> tuple[float, list[ShardRecord]]:
    records: list[ShardRecord] = []
    total = tables[0].num_shards
    runtime.map_shards(
        TASK, tables, arguments(total), range(total), new_writer(folder), records.append
    )
    return seconds(folder, records), records


def seconds(folder: str, records: Sequence[ShardRecord]) -> float:
    """From the first shard written to the last, by the clock of the files."""
    files = [Path(folder, "crop/bench", record.files["crops"].path) for record in records]
    times = [file.stat().st_mtime_ns for file in files]
    return (max(times) - min(times)) / 1e9


def contents(records: Sequence[ShardRecord]) -> dict[int, str]:
    return {record.index: record.files["crops"].sha256 for record in records}


def two_workers(tables: Sequence[Table], folder: str, rounds: int) -> None:
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    compute = ComputeConfig(runtime="ray", data_workers=2, num_cpus=3, object_store_mb=200)
    runtime = RayRuntime(compute)
    images = PER_SHARD * (tables[0].num_shards - 1)  # beyond the first shard
    rates: dict[str, list[float]] = {"two processes": [], "Ray Data": []}
    expected = contents(plain(tables, folder, 1)[1])
    try:
        on_ray(runtime, tables, folder)  # Ray's own warm-up
        for _ in range(rounds):
            for name in rates:
                way = partial(on_ray, runtime) if name == "Ray Data" else partial(plain, workers=2)
                took, records = way(tables, folder)
                rates[name].append(images / took)
                assert contents(records) == expected, "the order of work has changed the bytes"
    finally:
        runtime.close()
    share = [r / p for p, r in zip(*rates.values(), strict=True)]
    for name, each in rates.items():
        middle = statistics.median(each)
        print(f"{name:18} {middle:6.0f} images a second, of {sorted(map(round, each))}")
    middle, each = statistics.median(share), [round(value, 2) for value in sorted(share)]
    print(f"Ray Data over two processes: {middle:.2f}, of {each}")
    print("the same bytes from one process, two processes and two workers")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", action="store_true", help="two processes against Ray Data")
    parser.add_argument("--shards", type=int, default=120, help="with --ray: shards of 32 images")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="gcdis-bench-") as folder:
        tables = write_scenes(Path(folder), chosen.shards if chosen.ray else 1, PER_SHARD)
        if chosen.ray:
            two_workers(tables, folder, chosen.rounds)
        else:
            one_core(tables, folder, chosen.rounds)


if __name__ == "__main__":
    main()
