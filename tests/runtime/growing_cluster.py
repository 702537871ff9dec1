"""A head, later a node more, then without it again; one data step all the while.

Told a folder, it prints how many workers had a shard at once, and the shards that were done.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from toy_shards import NUM_SHARDS, AddTask, Shards

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime import ray_session
from gcdis_ray.runtime.base import ShardOutput

WORKERS, PATIENCE_S = 3, 200
WAITS_FOR_OTHERS = 0  # the shard that does


class WaitingTask(AddTask):
    """One shard waits for the others' workers, and all of these until they are told to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(opened=str(folder / "opened"))
        self.go_on = str(folder / "go_on")

    def open(self, device: str) -> Callable[..., ShardOutput]:
        super().open(device)
        return self.wait

    def wait(self, index: int, table, amount: float = 1.0) -> ShardOutput:
        if index == WAITS_FOR_OTHERS:
            _until(lambda: len(os.listdir(self.opened)) >= WORKERS)
        else:
            _until(Path(self.go_on).exists)
        return self._add(index, table, amount)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def main(folder: Path) -> None:
    ray_session._prepare_environment(None)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "temp_dir": str(folder / "ray"), "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    compute = ComputeConfig(address=cluster.address, data_workers=WORKERS)
    runtime, task = RayRuntime(compute), WaitingTask(folder)
    os.mkdir(task.opened)
    shards, told = Shards(folder / "data"), list[str]()

    def run() -> None:
        try:
            runtime.map_shards(
                task, [shards.table], shards.args, list(range(NUM_SHARDS)), shards.writer,
                shards.records.append, told.append,
            )  # fmt: skip
        finally:
            over.set()

    over = threading.Event()
    step = threading.Thread(target=run)
    step.start()
    _until(lambda: over.is_set() or len(os.listdir(task.opened)) == 1)
    node = cluster.add_node(num_cpus=WORKERS - 1)
    _until(lambda: over.is_set() or len(os.listdir(task.opened)) >= WORKERS)
    print("WORKERS", len(os.listdir(task.opened)), flush=True)
    cluster.remove_node(node)  # with the shards that its workers had
    Path(task.go_on).touch()
    step.join(PATIENCE_S)
    shards.check(list(range(NUM_SHARDS)))
    print("DONE", len(shards.records), flush=True)
    runtime.close()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
