"""Everything in this process, one thing after another: for debuggers, tests and small machines.

The same tasks, loop and numbers as on Ray; only nothing is parallel, so ``compute.workers`` and
``compute.data_workers`` have no meaning here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import RuntimeUnavailable
from gcdis_ray.runtime.base import ShardOutput, ShardRecord, ShardTask, ShardWriter
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.plan import FitPlan, Progress

if TYPE_CHECKING:
    from gcdis_ray.training.task import TrainingTask


class LocalRuntime:
    """Implements :class:`gcdis_ray.runtime.base.Runtime`."""

    def __init__(self, compute: ComputeConfig) -> None:
        self._compute = compute

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
        device = device_of(task, self._compute)
        if device == "cuda":
            _check_gpu()
        run = task.open(device)
        limit_threads(self._compute.threads)
        for index in indices:
            done(run_shard(run, tables, args, index, writer))

    def fit(
        self, task: TrainingTask, plan: FitPlan, progress: Callable[[Progress], None]
    ) -> dict[str, list[FileRecord]]:
        import torch

        from gcdis_ray.training.checkpoints import StoredCheckpoints
        from gcdis_ray.training.loop import train

        device = torch.device("cuda" if self._compute.gpus_per_worker else "cpu")
        if device.type == "cuda":
            _check_gpu()
        checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri, plan.scratch_endpoint))
        if self._compute.strategy == "deepspeed":
            _ensure_process_group(self._compute)
        return train(task, plan, checkpoints, device, progress)

    def close(self) -> None:
        """Nothing to release."""


def device_of(task: ShardTask, compute: ComputeConfig) -> str:
    """What a data step is opened with, wherever it runs: a GPU if it wants one and workers have
    some, else the CPU."""
    wants_gpu = getattr(task, "wants_gpu", False)
    return "cuda" if wants_gpu and compute.gpus_per_worker else "cpu"


def run_shard(
    run: Callable[..., Mapping[str, Any] | ShardOutput],
    tables: Sequence[Table],
    args: Sequence[Mapping[str, Any]],
    index: int,
    writer: ShardWriter,
) -> ShardRecord:
    """Read one shard of every table, compute, write. What a worker does, wherever it runs."""
    output = run(index, *(table.shard(index) for table in tables), **args[index])
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


def _check_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeUnavailable(
            "this machine has no GPU that torch can use",
            where="compute.gpus_per_worker",
            fix="set compute.gpus_per_worker=0",
        )


def _ensure_process_group(compute: ComputeConfig) -> None:
    """DeepSpeed insists on a process group, even of one process, and remembers it for good."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
        backend = "nccl" if compute.gpus_per_worker else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
