"""A stage's view of its run: hands steps and fits to a runtime, collects what they wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.artifacts import FileRecord, Table, TensorFile
from gcdis_ray.attempt import Attempt, GroupWriter, finished_units
from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.runtime.base import FitPlan, Progress, Runtime, ShardRecord, ShardTask
from gcdis_ray.storage import ArtifactOpener

if TYPE_CHECKING:
    import torch

    from gcdis_ray.training.task import TrainingTask


class StageWork:
    """Implements :class:`gcdis_ray.runtime.base.Work` on an attempt and a runtime."""

    def __init__(
        self,
        attempt: Attempt,
        runtime: Callable[[], Runtime],
        compute: ComputeConfig,
        seed: int,
        progress: Callable[[Progress], None],
    ) -> None:
        """Args:
        runtime: gives the runtime when first needed, so that a cached run starts no Ray.
        """
        self._attempt, self._runtime, self._compute = attempt, runtime, compute
        self._seed, self._progress = seed, progress
        self._opener = ArtifactOpener(attempt.storage, attempt.base)
        self._earlier = finished_units(attempt.storage, attempt.base)
        self.files: dict[str, list[FileRecord]] = {}
        self.counts: Counter[str] = Counter()
        self.adopted = 0  # units taken over from an interrupted run

    @property
    def seed(self) -> int:
        return self._seed

    def _add(self, member: str, records: list[FileRecord]) -> None:
        if member in self.files:
            raise ArtifactError(f"member {member!r} is written twice", where=self._attempt.base)
        self.files[member] = records

    def map_shards(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        *,
        gives: Sequence[str],
        args: Sequence[Mapping[str, Any]] | None = None,
        num_shards: int | None = None,
        unit: str = "shards",
    ) -> dict[str, Table]:
        sizes = {table.num_shards for table in tables}
        total = num_shards if num_shards is not None else (sizes or {len(args or ())}).pop()
        if sizes - {total} or (args is not None and len(args) != total):
            raise ArtifactError(f"tables of {sizes} and {total} shards", where=self._attempt.base)
        writer = GroupWriter(self._attempt, tuple(gives))
        records: dict[int, ShardRecord] = {}
        for index in range(total):
            if earlier := self._earlier.get(writer.unit(index)):
                files = {name: rs[0] for name, rs in earlier.files.items()}
                records[index] = ShardRecord(index, files, earlier.counts)
        self.adopted += len(records)
        missing = [index for index in range(total) if index not in records]

        def done(record: ShardRecord) -> None:
            records[record.index] = record
            self.progress(len(records), total, unit)

        self.progress(len(records), total, unit)
        if missing:
            self._runtime().map_shards(
                task,
                tables,
                args or [{}] * total,
                missing,
                writer,
                done,
                lambda reason: self.progress(len(records), total, unit, reason),
            )
        for name in gives:
            self._add(name, [records[index].files[name] for index in range(total)])
        for index in range(total):
            self.counts.update(records[index].counts)
        return {name: self.table(name) for name in gives}

    def fit(self, task: TrainingTask, *, unit: str = "steps") -> dict[str, list[FileRecord]]:
        name = f"fit/{task.member}"
        if earlier := self._earlier.get(name):
            self.adopted += 1
            members = earlier.files
        else:
            plan = FitPlan(
                name=self._attempt.base.replace("/", "-"),
                scratch_uri=f"{self._attempt.storage.uri}/{self._attempt.base}/train",
                writer=self._attempt,
                compute=self._compute,
                scratch_endpoint=self._attempt.storage.endpoint,
            )
            members = self._runtime().fit(task, plan, self._progress)
            self._attempt.finish(name, members, {})
        for member, records in members.items():
            self._add(member, records)
        return members

    def write_table(self, member: str, table: pa.Table) -> Table:
        self._add(member, [self._attempt.table(member, table)])
        return self.table(member)

    def write_json(self, member: str, value: Any) -> None:
        self._add(member, [self._attempt.json(member, value)])

    def write_tensors(self, member: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self._add(member, [self._attempt.tensors(member, tensors)])

    def table(self, member: str) -> Table:
        return Table(member, tuple(self.files[member]), self._opener)

    def tensor_file(self, member: str) -> TensorFile:
        return TensorFile(self.files[member][0], self._opener)

    def count(self, name: str, value: int) -> None:
        self.counts[name] += value

    def progress(self, done: int, total: int, unit: str, note: str = "") -> None:
        self._progress(Progress(done, total, unit, note))
