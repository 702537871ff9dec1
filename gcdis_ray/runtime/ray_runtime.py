"""Everything on Ray: data steps on Ray Data, training on Ray Train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime.base import ShardRecord, ShardTask, ShardWriter
from gcdis_ray.runtime.devices import Kind, gpu_share
from gcdis_ray.runtime.ray_session import RaySession
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.training.plan import FitPlan, Progress

if TYPE_CHECKING:
    from gcdis_ray.training.task import TrainingTask


class RayRuntime:
    """Implements :class:`gcdis_ray.runtime.base.Runtime`. Ray runs from construction to close."""

    def __init__(self, compute: ComputeConfig, *, dashboard: bool = False) -> None:
        self._compute = compute
        self._session = RaySession(compute, dashboard=dashboard)
        from gcdis_ray.runtime.ray_board import Board  # ray reads its settings when imported

        self._board = Board()
        self._gpus: Kind | None = None  # what Ray's GPUs are, once someone wanted to know

    def device_of(
        self, task: ShardTask, waiting: Callable[[str], None] = lambda reason: None
    ) -> Kind:
        return self._given(gpu_share(task, self._compute), waiting)

    def _given(self, share: float, waiting: Callable[[str], None]) -> Kind:
        """Kind of device of a worker that asks for ``share`` of a GPU."""
        from gcdis_ray.runtime.ray_devices import kind_of_gpus

        if not share:
            return "cpu"
        if self._gpus is None:
            self._gpus = kind_of_gpus(share, self._compute.wait_s, waiting)
        return self._gpus

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
        from gcdis_ray.runtime.ray_data import map_shards

        device = self.device_of(task, waiting)
        map_shards(
            self._compute, task, device, tables, args, indices, writer, done, waiting, self._board
        )

    def fit(
        self, task: TrainingTask, plan: FitPlan, progress: Callable[[Progress], None]
    ) -> dict[str, list[FileRecord]]:
        from gcdis_ray.runtime.ray_train import fit

        device = self._given(
            self._compute.gpus_per_worker,
            lambda reason: progress(Progress(0, task.config.steps, "steps", reason)),
        )
        return fit(task, plan, device, progress, self._board, own_ray=self._session.own_ray)

    def close(self) -> None:
        self._session.close()
