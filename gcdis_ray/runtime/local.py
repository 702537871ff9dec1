"""Everything in this process, one thing after another: for debuggers, tests and small machines.

The same tasks, loop and numbers as on Ray; only nothing is parallel, so ``compute.workers`` and
``compute.data_workers`` have no meaning here. While a GPU computes a shard, the next is read.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime.base import ShardOutput, ShardRecord, ShardTask, ShardWriter
from gcdis_ray.runtime.devices import BACKENDS, Kind, gpu_share, of_this_machine
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.plan import FitPlan, Progress

if TYPE_CHECKING:
    from gcdis_ray.training.task import TrainingTask


SHARDS_ON_GPU = 2  # at a time, by one process: one is computed, one is read or written


class LocalRuntime:
    """Implements :class:`gcdis_ray.runtime.base.Runtime`."""

    def __init__(self, compute: ComputeConfig) -> None:
        self._compute = compute

    def device_of(
        self, task: ShardTask, waiting: Callable[[str], None] = lambda reason: None
    ) -> Kind:
        return of_this_machine() if gpu_share(task, self._compute) else "cpu"

    def map_shards(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        args: Sequence[Mapping[str, Any]],
        indices: Sequence[int],
        writer: ShardWriter,
        done: Callable[[ShardRecord], None],
        waiting: Callable[[str], None] = lambda reason: None,
    ) -> None:
        if not indices:
            return
        device = self.device_of(task)
        run = task.open(device)
        limit_threads(self._compute.threads)
        if device == "cpu":
            for index in indices:
                done(run_shard(run, tables, args, index, writer))
            return
        turn = threading.Lock()
        with ThreadPoolExecutor(SHARDS_ON_GPU) as pool:
            futures = [
                pool.submit(
                    copy_context().run, run_shard, run, tables, args, index, writer, turn=turn
                )
                for index in indices
            ]
            try:
                for future in futures:
                    done(future.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def fit(
        self, task: TrainingTask, plan: FitPlan, progress: Callable[[Progress], None]
    ) -> dict[str, list[FileRecord]]:
        import torch

        from gcdis_ray.training.checkpoints import StoredCheckpoints
        from gcdis_ray.training.loop import train

        kind: Kind = of_this_machine() if self._compute.gpus_per_worker else "cpu"
        scratch = open_storage(plan.scratch_uri, plan.scratch_endpoint)
        checkpoints = StoredCheckpoints(scratch, plan.run)
        if self._compute.strategy == "deepspeed":
            _ensure_process_group(BACKENDS[kind])
        return train(task, plan, checkpoints, torch.device(kind), progress)

    def close(self) -> None:
        """Nothing to release."""


def run_shard(
    run: Callable[..., Mapping[str, Any] | ShardOutput],
    tables: Sequence[Table],
    args: Sequence[Mapping[str, Any]],
    index: int,
    writer: ShardWriter,
    turn: AbstractContextManager[Any] | None = None,
) -> ShardRecord:
    """Read one shard of every table, compute, write. What a worker does, wherever it runs.

    Args:
        turn: whoever holds it computes: others, in other threads, read their shard meanwhile, or
            write it.
    """
    read = [table.shard(index) for table in tables]
    with turn or nullcontext():
        output = run(index, *read, **args[index])
    if not isinstance(output, ShardOutput):
        output = ShardOutput(output)
    return writer.write(index, output)


def limit_threads(count: int) -> None:
    """Threads of torch and OpenCV in a data step, if the step uses them: torch's numbers can
    depend on them, and workers share a machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(count)


def _ensure_process_group(backend: str) -> None:
    """DeepSpeed insists on a process group, even of one process, and remembers it for good."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
