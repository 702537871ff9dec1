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
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scene_shards import OBJECTS, write_scenes

from gcdis_ray.artifacts import Table
from gcdis_ray.attempt import Attempt, GroupWriter
from gcdis_ray.config import ComputeConfig
from gcdis_ray.data.image_files import ImageFiles
from gcdis_ray.runtime.base import ShardRecord
from gcdis_ray.runtime.local import run_shard
from gcdis_ray.stages.crop import Config, CropShard
from gcdis_ray.storage import LocalStorage

PER_SHARD = 32
TASK = CropShard(Config.model_validate({}), ImageFiles())


def arguments(num_shards: int) -> list[dict[str, Any]]:
    return [{"first_crop": OBJECTS * PER_SHARD * index} for index in range(num_shards)]


def new_writer(folder: str) -> GroupWriter:
    attempt = Attempt(LocalStorage(folder), "crop/bench", f"attempt-{uuid.uuid4().hex[:12]}")
    return GroupWriter(attempt, ("crops",))


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
            TASK.open(), tables, arguments(1), 0, new_writer(folder)
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


def work(tables: Sequence[Table], indices: Sequence[int], folder: str, out: Any, go: Any) -> None:
    cv2.setNumThreads(1)
    run, writer = TASK.open(), new_writer(folder)
    go.wait()
    for index in indices:
        out.put(run_shard(run, tables, arguments(tables[0].num_shards), index, writer))


def plain(tables: Sequence[Table], folder: str, workers: int) -> tuple[float, list[ShardRecord]]:
    context = multiprocessing.get_context("spawn")
    out, go, total = context.Queue(), context.Barrier(workers), tables[0].num_shards
    processes = [
        context.Process(target=work, args=(tables, range(w, total, workers), folder, out, go))
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    records, times = [], []
    for _ in range(total):
        records.append(out.get())
        times.append(time.perf_counter())
    for process in processes:
        process.join()
    return times[-1] - times[0], records


def on_ray(runtime: Any, tables: Sequence[Table], folder: str) -> tuple[float, list[ShardRecord]]:
    records: list[ShardRecord] = []
    times: list[float] = []

    def done(record: ShardRecord) -> None:
        records.append(record)
        times.append(time.perf_counter())

    total = tables[0].num_shards
    runtime.map_shards(TASK, tables, arguments(total), range(total), new_writer(folder), done)
    return times[-1] - times[0], records


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
                seconds, records = (
                    on_ray(runtime, tables, folder)
                    if name == "Ray Data"
                    else plain(tables, folder, 2)
                )
                rates[name].append(images / seconds)
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
    parser.add_argument("--shards", type=int, default=24, help="with --ray: shards of 32 images")
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
