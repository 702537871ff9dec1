"""What a stage may ask of the place it runs in. Stages see this and nothing else of the outside.

A stage is ``run(inputs, config, work) -> None``; it reads members of ``inputs``
(:class:`~gcdis_ray.store.members.Inputs`) and writes through ``work``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from gcdis_ray.runtime.devices import Kind
from gcdis_ray.store.artifacts import FileRecord, Table, TensorFile
from gcdis_ray.training.plan import FitPlan, Progress

if TYPE_CHECKING:
    import torch

    from gcdis_ray.training.task import TrainingTask


class ShardTask(Protocol):
    """A data step over co-sharded tables. Small and picklable: models are opened in ``open``.

    ``open(device)`` runs once per worker and returns the function that is called once per shard
    with ``(index, *tables, **args)``: the shard's number, its slice of every input table and the
    shard's own arguments. It returns ``{member: table}`` with every promised member, or a
    :class:`ShardOutput` to add counts. It must be a pure function of these.

    ``device`` is torch's name of where networks run, ``cpu`` or ``cuda``: whoever runs the task
    decides. Only a task with an attribute ``wants_gpu = True`` is ever opened with ``cuda``. It may
    have an attribute ``precision``, that of the training whose weights it runs: on a GPU its
    network infers in it (:func:`gcdis_ray.runtime.devices.precision_on`).

    What it is made of, tensors and tables, are its attributes: units of work are named after them
    (:mod:`gcdis_ray.run.unit_names`).
    """

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table] | ShardOutput]: ...


@dataclass(frozen=True)
class ShardOutput:
    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int] = field(default_factory=dict)  # summed into the manifest


class TableWriter(Protocol):
    """Writes a table in shards, one after another."""

    def add(self, table: pa.Table) -> None: ...
    def close(self) -> Table:
        """The table, once all of it is written."""
        ...


class Work(Protocol):
    """A stage's view of its run: numbers in, tables out, no paths."""

    @property
    def seed(self) -> int: ...

    def map_shards(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        *,
        gives: Sequence[str],
        args: Sequence[Mapping[str, Any]] | None = None,
        unit: str = "shards",
    ) -> dict[str, Table]:
        """Run ``task`` on every shard, write each result as shard of the members in ``gives``.

        Args:
            tables: co-sharded inputs (all with the same number of shards). May be empty when
                ``args`` describe the work (then one shard per entry of ``args``).
            args: extra keyword arguments per shard.

        Returns:
            handles to the written members. Finished shards of an interrupted earlier run are
            kept, not redone.
        """
        ...

    def spool(self, name: str, schema: pa.Schema) -> TableWriter:
        """Lays tables aside, to be read again before the stage ends.

        They are no part of the artifact. For what does not fit into memory, and for inputs of
        :meth:`map_shards` that the stage itself makes.
        """
        ...

    def writer(self, member: str) -> TableWriter:
        """Writes a member of the artifact shard by shard."""
        ...

    def fit(self, task: TrainingTask) -> dict[str, list[FileRecord]]:
        """Train ``task``; the members it exports become members of this stage's artifact."""
        ...

    def trial(self, name: str) -> Work:
        """A work of its own beside this one, to try something: what is written there is no part of
        the artifact. Finished units of an interrupted earlier run are kept likewise.

        Args:
            name: different for every trial; letters, digits, dashes.
        """
        ...

    def write_table(self, member: str, table: pa.Table) -> Table: ...
    def write_json(self, member: str, value: Any) -> None: ...
    def write_tensors(self, member: str, tensors: Mapping[str, torch.Tensor]) -> None: ...

    def has(self, member: str) -> bool:
        """Whether this stage has already written the member."""
        ...

    def table(self, member: str) -> Table:
        """Handle to a member this stage has already written (map_shards, fit, write_table)."""
        ...

    def tensor_file(self, member: str) -> TensorFile:
        """Handle to a tensor member this stage has already written."""
        ...

    def count(self, name: str, value: int) -> None:
        """Add to a counter of the manifest (rows quarantined, objects rejected, ...)."""
        ...

    def progress(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Tell people how far the stage is."""
        ...


class ShardWriter(Protocol):
    """Writes one finished shard durably: its tables, then its record. Pickles to workers."""

    def write(self, index: int, output: ShardOutput) -> ShardRecord: ...


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: the file written per member, and its counts."""

    index: int
    files: Mapping[str, FileRecord]
    counts: Mapping[str, int]


class Runtime(Protocol):
    """A place to run: :mod:`~gcdis_ray.runtime.local` or Ray. Chosen by the command line only."""

    def device_of(
        self, task: ShardTask, waiting: Callable[[str], None] = lambda reason: None
    ) -> Kind:
        """The kind of device that :meth:`map_shards` opens ``task`` with, on every worker.

        Args:
            waiting: called with a line for people while no GPU can be had.

        Raises:
            RuntimeUnavailable: it wants a GPU, and there is none that can be used.
        """
        ...

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
        """Run ``task`` for the shards in ``indices``; call ``done`` as each is written, and
        ``waiting`` with a line for people while no worker can be had."""
        ...

    def fit(
        self, task: TrainingTask, plan: FitPlan, progress: Callable[[Progress], None]
    ) -> dict[str, list[FileRecord]]:
        """Train from the newest checkpoint, if any, to the end; write and return the members.

        ``progress`` may raise :class:`~gcdis_ray.errors.Stopped`: the training then ends where it
        is, frees what it holds and raises it again. A later run goes on from its checkpoint.
        """
        ...

    def close(self) -> None: ...


class Trials(Protocol):
    """What a runtime that runs trials asks: what to run next, and whether to go on."""

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """Number and values of a trial to start; None when there are no more."""
        ...

    def told(self, number: int, step: int, value: float) -> bool:
        """A trial has told a value of its objective on the way. True: end it."""
        ...

    def ended(self, number: int, outcome: Mapping[str, Any] | None, error: str | None) -> None:
        """A trial is over, with what it returned, or a line on what went wrong; with neither when
        it was ended early."""
        ...


class TrialFunction(Protocol):
    """Runs a trial where it is called; pickles. Gives plain data."""

    def __call__(
        self, values: Mapping[str, Any], tell: Callable[[int, float], None]
    ) -> Mapping[str, Any]: ...
