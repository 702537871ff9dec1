"""A tiny data step and a table to run it on."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from tables import SCHEMAS

from gcdis_ray.errors import DataError
from gcdis_ray.run.attempt import Attempt, GroupWriter
from gcdis_ray.runtime.base import ShardOutput, ShardRecord
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import HISTORY
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage

NUM_SHARDS = 6


class AddTask:
    """Adds ``amount`` to every value of a history table.

    Args:
        kill_file: the worker of shard 3 is killed with SIGKILL, once: this file says it was.
        mistake_at, crash_at: shard at which DataError or ValueError is raised.
        opened: a folder where every process that opens it leaves a file that names the device.
        wants_gpu: whether it asks for one.
    """

    def __init__(
        self,
        *,
        kill_file: str = "",
        mistake_at: int = -1,
        crash_at: int = -1,
        opened: str = "",
        wants_gpu: bool = False,
    ) -> None:
        self.kill_file, self.mistake_at, self.crash_at = kill_file, mistake_at, crash_at
        self.opened, self.wants_gpu = opened, wants_gpu

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table] | ShardOutput]:
        if self.opened:
            Path(self.opened, str(os.getpid())).write_text(device)
        return self._add

    def _add(self, index: int, table: pa.Table, amount: float = 1.0) -> ShardOutput:
        if index == 3 and self.kill_file and not Path(self.kill_file).exists():
            with contextlib.suppress(FileNotFoundError):  # no such folder: it is killed every time
                Path(self.kill_file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.mistake_at:
            raise DataError("photo is broken", where="photo 17", fix="replace it")
        if index == self.crash_at:
            raise ValueError("a fault of the code")
        value = pc.add(table["value"], amount)  # type: ignore[attr-defined]
        return ShardOutput({"history": table.set_column(2, "value", value)}, {"seen": len(table)})


class HeldTask(AddTask):
    """Says in its file what its actor holds of Ray's GPUs, after the device."""

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table] | ShardOutput]:
        import ray

        held = ray.get_runtime_context().get_assigned_resources().get("GPU", 0)
        return super().open(f"{device} {held:g}")


class Shards:
    """``NUM_SHARDS`` shards of a table below ``folder``, and what a run made of them."""

    def __init__(self, folder: Path) -> None:
        storage = LocalStorage(str(folder))
        self.opener = ArtifactOpener(storage, "toy/0", SCHEMAS)
        inputs = Attempt(storage, "toy/0", "attempt-0", SCHEMAS)
        records = [
            inputs.table(
                "history",
                pa.table(
                    [[index, index], ["a", "b"], [index + 0.25, index + 0.5]],
                    schema=HISTORY,
                ),
                index,
            )
            for index in range(NUM_SHARDS)
        ]
        self.table = Table("history", tuple(records), self.opener)
        self.args = [{"amount": 10.0 * index} for index in range(NUM_SHARDS)]
        attempt = Attempt(storage, "toy/0", "attempt-1", SCHEMAS)
        self.writer = GroupWriter(attempt, ("history",), "history")
        self.records: list[ShardRecord] = []

    def check(self, indices: list[int]) -> None:
        """Every shard in ``indices`` was reported once, written and holds the right rows."""
        assert sorted(record.index for record in self.records) == indices
        assert {tuple(record.counts.items()) for record in self.records} == {(("seen", 2),)}
        for record in self.records:
            rows = self.opener.read_table(record.files["history"], None)
            shift = 11.0 * record.index
            assert rows["value"].to_pylist() == [shift + 0.25, shift + 0.5]
