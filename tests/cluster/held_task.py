"""A data step whose shards wait for a file, and a program that runs it on a cluster:
``python held_task.py FOLDER NUM_SHARDS DATA_WORKERS``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.ray_runtime import RayRuntime
from gcdis_ray.store.schemas import HISTORY
from gcdis_ray.store.storage import LocalStorage


@dataclass(frozen=True)
class HeldTask:
    """Makes a row per shard, once ``released`` is there."""

    released: str

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        return self._row

    def _row(self, index: int) -> Mapping[str, pa.Table]:
        while not Path(self.released).exists():
            time.sleep(0.1)
        return {"history": pa.table([[index], ["a"], [float(index)]], schema=HISTORY)}


def main(folder: str, num_shards: str, data_workers: str) -> None:
    compute = ComputeConfig(data_workers=int(data_workers), wait_s=1)
    attempt = Attempt(LocalStorage(f"{folder}/storage"), "held/0", "attempt-0", SCHEMAS)
    runtime = RayRuntime(compute)
    work = StageWork(
        attempt, lambda: runtime, compute, 0, lambda at: print("AT", at.done, at.note, flush=True)
    )
    shards = [{} for _ in range(int(num_shards))]
    try:
        made = work.map_shards(HeldTask(f"{folder}/released"), [], gives=["history"], args=shards)
    finally:
        runtime.close()
    print("DONE", json.dumps(made["history"].read()["step"].to_pylist()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
