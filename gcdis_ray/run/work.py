"""A stage's view of its run: hands steps and fits to a runtime, collects what they wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.run.attempt import Attempt, GroupWriter, finished_units
from gcdis_ray.run.unit_names import group_name
from gcdis_ray.runtime.base import Runtime, ShardRecord, ShardTask
from gcdis_ray.runtime.devices import KINDS, Kind, gpu_share
from gcdis_ray.store.artifacts import FileRecord, Table, TensorFile
from gcdis_ray.store.storage import ArtifactOpener, Storage
from gcdis_ray.training.pace import Course
from gcdis_ray.training.plan import FitPlan, Progress

if TYPE_CHECKING:
    import torch

    from gcdis_ray.training.task import TrainingTask


class ShardedWriter:
    """Implements :class:`gcdis_ray.runtime.base.TableWriter`."""

    def __init__(self, work: StageWork, name: str, spool: tuple[str, pa.Schema] | None) -> None:
        """Args: spool: number and schema of a spool; None for a member of the artifact."""
        self._work, self._name, self._spool = work, name, spool
        self._records: list[FileRecord] = []

    def add(self, table: pa.Table) -> None:
        attempt, part = self._work.attempt, len(self._records)
        self._records.append(
            attempt.table(self._name, table, part)
            if self._spool is None
            else attempt.spool(self._name, table, part, *self._spool)
        )

    def close(self) -> Table:
        if self._spool is None:
            self._work.add(self._name, self._records)
        if self._spool is None:
            return self._work.table(self._name)
        opener = replace(self._work.opener, schemas={self._name: self._spool[1]})
        return Table(self._name, tuple(self._records), opener)


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
        self.attempt, self._runtime, self._compute = attempt, runtime, compute
        self._seed, self._progress = seed, progress
        self.opener = ArtifactOpener(attempt.storage, attempt.base, attempt.schemas)
        self._earlier = finished_units(attempt.storage, attempt.base)
        self.files: dict[str, list[FileRecord]] = {}
        self.counts: Counter[str] = Counter()
        self.pace: dict[str, list[float | None]] = {}  # of the training, if there was one
        self._spools = 0
        self.adopted = 0  # units taken over from an interrupted run
        self._trials: list[StageWork] = []

    @property
    def seed(self) -> int:
        return self._seed

    def add(self, member: str, records: list[FileRecord]) -> None:
        """Make written files a member of the artifact."""
        if member in self.files:
            raise ArtifactError(f"member {member!r} is written twice", where=self.attempt.base)
        self.files[member] = records

    def map_shards(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        *,
        gives: Sequence[str],
        args: Sequence[Mapping[str, Any]] | None = None,
        unit: str = "shards",
    ) -> dict[str, Table]:
        sizes = {table.num_shards for table in tables}
        total = len(args) if args is not None else (sizes or {0}).pop()
        if sizes - {total}:
            raise ArtifactError(f"tables of {sizes} and {total} shards", where=self.attempt.base)
        writer = self._writer(task, tables, tuple(gives), unit, total)
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
            self.attempt.begin(writer.group, total, unit)
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
            self.add(name, [records[index].files[name] for index in range(total)])
        for index in range(total):
            self.counts.update(records[index].counts)
        return {name: self.table(name) for name in gives}

    def _writer(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        gives: tuple[str, ...],
        unit: str,
        total: int,
    ) -> GroupWriter:
        """Of the units that ``task`` makes. They are named by where it runs: no runtime is started
        to ask for that where it runs on cores anyway, or where one kind of device made them all."""

        def of(kind: Kind) -> GroupWriter:
            return GroupWriter(self.attempt, gives, group_name(gives, task, tables, kind))

        if not gpu_share(task, self._compute):
            return of("cpu")
        for writer in map(of, KINDS):
            if all(writer.unit(index) in self._earlier for index in range(total)):
                return writer
        told = lambda reason: self.progress(0, total, unit, reason)  # noqa: E731
        return of(self._runtime().device_of(task, told))

    def fit(self, task: TrainingTask) -> dict[str, list[FileRecord]]:
        name = f"fit/{task.member}"
        if earlier := self._earlier.get(name):
            self.adopted += 1
            members, self.pace = earlier.files, earlier.pace
        else:
            plan = FitPlan(
                name=self.attempt.base.replace("/", "-"),
                attempt=self.attempt.name,
                scratch_uri=f"{self.attempt.storage.uri}/{self.attempt.base}/train",
                writer=self.attempt,
                compute=self._compute,
                scratch_endpoint=self.attempt.storage.endpoint,
            )
            course = Course()

            def told(progress: Progress) -> None:
                if progress.pace is not None:
                    course.add(progress.done, progress.pace)
                self._progress(progress)

            self.attempt.begin(name, task.config.steps, "steps")
            members = self._runtime().fit(task, plan, told)
            self.pace = course.columns()
            self.attempt.finish(name, members, {}, self.pace)
        for member, records in members.items():
            self.add(member, records)
        return members

    def trial(self, name: str) -> StageWork:
        """It lies beside the attempts, so that collecting garbage finds it once the artifact is
        committed."""
        attempt = replace(self.attempt, base=f"{self.attempt.base}/trials/{name}")
        told = lambda p: self._progress(replace(p, note=f"{name} {p.note}".strip()))  # noqa: E731
        trial = StageWork(attempt, self._runtime, self._compute, self._seed, told)
        self._trials.append(trial)
        return trial

    def spool(self, name: str, schema: pa.Schema) -> ShardedWriter:
        self._spools += 1
        return ShardedWriter(self, name, (f"{self._spools:05d}", schema))

    def writer(self, member: str) -> ShardedWriter:
        return ShardedWriter(self, member, None)

    def discard_spools(self) -> None:
        """Remove what was laid aside: the stage is over."""
        for trial in self._trials:
            trial.discard_spools()
        if self._spools:
            self.attempt.discard_spools()

    def write_table(self, member: str, table: pa.Table) -> Table:
        self.add(member, [self.attempt.table(member, table)])
        return self.table(member)

    def write_json(self, member: str, value: Any) -> None:
        self.add(member, [self.attempt.json(member, value)])

    def write_tensors(self, member: str, tensors: Mapping[str, torch.Tensor]) -> None:
        self.add(member, [self.attempt.tensors(member, tensors)])

    def has(self, member: str) -> bool:
        return member in self.files

    def table(self, member: str) -> Table:
        return Table(member, tuple(self.files[member]), self.opener)

    def tensor_file(self, member: str) -> TensorFile:
        return TensorFile(self.files[member][0], self.opener)

    def count(self, name: str, value: int) -> None:
        self.counts[name] += value

    def progress(self, done: int, total: int, unit: str, note: str = "") -> None:
        self._progress(Progress(done, total, unit, note))


def local_work(
    storage: Storage, schemas: Mapping[str, pa.Schema], *, base: str = "stage/key", seed: int = 0
) -> StageWork:
    """A work of no run, in this process: to try one stage, or one of its steps, by itself.

    Args:
        schemas: of the tables that are written, as
            :func:`~gcdis_ray.store.members.schemas_of` gives those of a stage.
        base: folder below the storage. Units that lie there already are taken over.
    """
    from gcdis_ray.runtime.local import LocalRuntime

    compute = ComputeConfig(runtime="local", workers=1, threads=1)
    attempt = Attempt(storage, base, "attempt-0", schemas)
    return StageWork(attempt, lambda: LocalRuntime(compute), compute, seed, lambda progress: None)
