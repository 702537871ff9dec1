"""The one training loop: every task, every strategy, on one process or many.

What makes a run repeatable bit by bit: a step is computed in parts (see
:mod:`gcdis_ray.training.task`), each a pure function of (seed, step, part) and of the state before
the step; torch's generator is seeded anew for each part; losses and BatchNorm statistics are means
over all parts in the order of parts. So nothing about random numbers needs to be saved, and the
number of workers changes no number. (Gradients are summed in another order when a worker has more
than one of several parts: with more than two parts, equality across workers is up to rounding.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load as decode_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor

from gcdis_ray.errors import ArtifactError, DataError
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.buffers import moving_buffers
from gcdis_ray.training.checkpoints import Checkpoints, Snapshots
from gcdis_ray.training.exchange import GroupExchange, parts_of_rank, rank
from gcdis_ray.training.feed import Feed, to_device
from gcdis_ray.training.history import History
from gcdis_ray.training.pace import PaceMeter
from gcdis_ray.training.plan import FitPlan, MemberWriter, Progress
from gcdis_ray.training.readings import Readings
from gcdis_ray.training.schedule import learning_rate
from gcdis_ray.training.strategy import build_strategy, check_layout, read_tensors
from gcdis_ray.training.task import TrainingTask
from gcdis_ray.training.torch_settings import torch_settings

PROGRESS_EVERY_S = 0.5
NOTICE_EVERY_S = 5.0  # as often as Ray looks for notices itself
HISTORY_ROWS = 200  # per curve
_NOTHING, _ASK, _SAVE = 0, 1, 2  # wishes: ask for a notice that a machine goes; save


def train(
    task: TrainingTask,
    plan: FitPlan,
    checkpoints: Checkpoints,
    device: torch.device,
    progress: Callable[[Progress], None],
) -> dict[str, list[FileRecord]]:
    """Train from the newest checkpoint to the end. Called on every rank.

    Args:
        progress: called on rank 0, at most every half second, at the end, and whenever the task
            has measured something.

    Returns:
        the members written, on rank 0: final weights, snapshots, history and what the task
        exports. Empty on other ranks.

    Raises:
        DataError: a loss that is not finite, naming the step.
        ConfigError: a checkpoint of another strategy or, with ZeRO, another number of workers.
        ArtifactError: the checkpoint to go on from, or a snapshot, is gone.
    """
    with torch_settings(plan.compute.threads, device, same_shapes=task.same_shapes):
        return TrainingRun(task, plan, checkpoints, device, progress).run()


class TrainingRun:
    """One rank's share of one training run.

    A step reads nothing back from the device: its values arrive as :class:`Readings` (on a GPU one
    step late), and all of them before anything is saved.
    """

    def __init__(
        self,
        task: TrainingTask,
        plan: FitPlan,
        checkpoints: Checkpoints,
        device: torch.device,
        progress: Callable[[Progress], None],
    ) -> None:
        self.task, self._plan, self._checkpoints = task, plan, checkpoints
        self._device, self._progress = device, progress
        self._config = task.config
        self.exchange = GroupExchange()
        self._parts = parts_of_rank(self._config.micro_batches)
        self._snapshots = Snapshots(open_storage(plan.scratch_uri, plan.scratch_endpoint))
        torch.manual_seed(task.seed)
        self._module = task.setup(device)
        self._buffers = moving_buffers(self._module)
        self._counters = [b for b in self._module.buffers() if not b.is_floating_point()]
        self._strategy = build_strategy(self._module, self._config, plan.compute, device)
        self._history = History(max(1, self._config.steps // HISTORY_ROWS))
        self.readings, self._loss = Readings(device), math.nan
        self._wish = _NOTHING
        self._on_host: dict[int, dict[str, float]] = {}  # values of a step that need no reading
        self._checkpointed_at = self._asked_at = time.monotonic()
        self._told_at = -math.inf
        self._losses: dict[str, float] = {}  # the newest, and what else was logged, by name
        self._pace = PaceMeter(self._config.batch_size, device)

    def run(self) -> dict[str, list[FileRecord]]:
        start, steps = self._resume(), self._config.steps
        self._tell(start, "resumed" if start else "")
        feed = Feed(self.task.batch, self._parts, self._plan.compute, self._device)
        for step, parts in self._pace.timed(feed.steps(start, steps)):
            self.step(step, parts)
            finished = step + 1
            keep = self.task.is_snapshot(finished)
            self._read(everything=keep or finished == steps)
            if keep and rank() == 0:
                self._snapshots.write(finished, encode_tensors(_plain(self.task.snapshot())))
            if self._is_due() or finished == steps:
                self._read(everything=True)
                self._save(finished)
            values = self.task.measured(finished)
            late = time.monotonic() - self._told_at > PROGRESS_EVERY_S
            if values or late or finished == steps:
                self._tell(finished, f"loss {self._loss:.3f}", values)
        return self._export(self._plan.writer) if rank() == 0 else {}

    def to_device(self, batch: Any) -> Any:
        """The tensors of a part's batch, on the run's device."""
        return to_device(batch, self._device)

    def step(self, step: int, batches: Sequence[Any]) -> None:
        """Enqueue one optimiser step; its values go to the readings.

        Args:
            step: from 0.
            batches: this rank's parts, on the device.
        """
        batches = self.task.prepare(batches, self.exchange)
        wish = self._clock()
        before, counters = self._flat_buffers(), [c.clone() for c in self._counters]
        rows, names = [], []
        for index, (part, batch) in enumerate(zip(self._parts, batches, strict=True)):
            torch.manual_seed(_sub_seed(self.task.seed, step, part))
            if index:  # every part starts from the state before the step
                self._set_buffers(before)
                for counter, value in zip(self._counters, counters, strict=True):
                    counter.copy_(value)
            losses = self._strategy.part(batch, last=index == len(batches) - 1)
            names = sorted(losses)
            logged = [torch.full((), float(wish), device=self._device)]
            logged += [losses[name].float() for name in names]
            rows.append(torch.cat([torch.stack(logged), self._flat_buffers() - before])[None])
        rows_P = self.exchange.rows(rows)  # P parts of the step: wish, losses, changes of buffers
        self._set_buffers(before + rows_P[:, 1 + len(names) :].mean(0))
        lr = learning_rate(self._config, step)
        self._strategy.step(lr)
        torch.manual_seed(_sub_seed(self.task.seed, step, self._config.micro_batches))
        after = self.task.after_step(step, self.exchange)
        here = {name: value for name, value in after.items() if not isinstance(value, Tensor)}
        there = {name: value.float() for name, value in after.items() if isinstance(value, Tensor)}
        self._on_host[step] = {**here, "lr": lr}
        logged_PV = rows_P[:, : 1 + len(names)]
        if there:
            others_PV = torch.stack(list(there.values())).expand(len(logged_PV), -1)
            logged_PV = torch.cat([logged_PV, others_PV], dim=1)
        self.readings.put(step, ["wish", *names, *there], logged_PV)

    def _clock(self) -> int:
        """What this rank's clock says of saving. Ranks save together, so only that of rank 0
        counts, sent as a value of the step."""
        now = time.monotonic()
        if now - self._checkpointed_at >= self._plan.compute.checkpoint_every_s:
            return _SAVE
        if now - self._asked_at >= NOTICE_EVERY_S:
            self._asked_at = now
            return _ASK
        return _NOTHING

    def _is_due(self) -> bool:
        """Whether to save now: it is time, or a machine is about to be taken away."""
        if self._wish == _ASK:
            self._wish = _SAVE if self._checkpoints.urgent() else _NOTHING
        return self._wish == _SAVE

    def _read(self, *, everything: bool) -> None:
        """Take what has arrived into the history.

        Raises:
            DataError: a loss that is not finite.
        """
        for reading in self.readings.take(everything=everything):
            finished, wish = reading.step + 1, int(reading.values[0][0])  # of rank 0's clock
            columns = list(zip(*reading.values, strict=True))[1:]
            means = [math.fsum(column) / len(column) for column in columns]
            values = dict(zip(reading.names[1:], means, strict=True))
            self._check_finite(reading.step, values)
            self._losses = values
            values |= self._on_host.pop(reading.step)
            self._history.add(finished, values, last=finished == self._config.steps)
            self._loss, self._wish = values["total"], max(self._wish, wish)

    def _check_finite(self, step: int, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DataError(
                f"loss is not finite at step {step + 1}: {', '.join(bad)}",
                where=f"training of {self.task.member}",
                fix="lower training.lr, raise training.warmup or set training.clip_norm",
            )

    def _flat_buffers(self) -> Tensor:
        """Buffers that a forward changes, as one fp32 vector (empty if there are none)."""
        flat = [buffer.detach().reshape(-1).float() for buffer in self._buffers]
        return torch.cat(flat) if flat else torch.zeros(0, device=self._device)

    def _set_buffers(self, flat: Tensor) -> None:
        sizes = [buffer.numel() for buffer in self._buffers]
        for buffer, values in zip(self._buffers, flat.split(sizes), strict=True):
            buffer.copy_(values.view_as(buffer))

    def _save(self, finished: int) -> None:
        def write(folder: Path) -> None:
            if rank() == 0:
                state = {
                    "layout": self._strategy.layout,
                    "step": finished,
                    "module": self._module.state_dict(),
                    "task": self.task.state(),
                    "history": self._history.state(),
                    "snapshots": self._snapshots.state(),
                }
                torch.save(state, folder / "state.pt")
            self._strategy.save(folder)

        writes = rank() == 0 or self._strategy.sharded
        self._checkpoints.save(finished, write if writes else None)
        self._checkpointed_at, self._wish = time.monotonic(), _NOTHING

    def _resume(self) -> int:
        """Load the newest checkpoint. Returns the number of finished steps.

        Raises:
            ArtifactError: another driver, alive under this key, has just removed it.
        """
        try:
            with self._checkpoints.latest() as folder:
                if folder is None:
                    return 0
                state = read_tensors(folder / "state.pt")
                check_layout(state["layout"], self._strategy.layout, self._plan.scratch_uri)
                self._module.load_state_dict(state["module"])
                self._strategy.load(folder)
        except FileNotFoundError as error:
            raise ArtifactError(
                f"the checkpoint to go on from is gone ({error})",
                where=self._plan.scratch_uri,
                fix="run again: it goes on from a newer one, of another run that is still at work",
            ) from error
        self.task.load_state(state["task"])
        self._history.load_state(state["history"])
        self._snapshots.load_state(state["snapshots"])
        return state["step"]

    def _tell(self, finished: int, note: str, values: Mapping[str, float] | None = None) -> None:
        self._told_at = time.monotonic()
        if rank() == 0:
            loss = self._loss if math.isfinite(self._loss) else None
            told = Progress(
                finished,
                self._config.steps,
                "steps",
                note,
                dict(values or {}),
                loss,
                self._losses,
                self._pace.take(),
            )
            self._progress(told)

    def _export(self, writer: MemberWriter) -> dict[str, list[FileRecord]]:
        members: dict[str, FileRecord] = {}
        for step in range(1, self._config.steps + 1):
            if self.task.is_snapshot(step):
                name = f"snapshot_{step}"
                members[name] = writer.tensors(name, decode_tensors(self._snapshots.read(step)))
        members[self.task.member] = writer.tensors(self.task.member, _plain(self.task.snapshot()))
        members["history"] = writer.table("history", self._history.table())
        for name, value in self.task.export().items():
            members[name] = _write(writer, name, value)
        return {name: [record] for name, record in members.items()}


def _write(writer: MemberWriter, name: str, value: Any) -> FileRecord:
    if isinstance(value, pa.Table):
        return writer.table(name, value)
    if isinstance(value, Mapping) and value and all(isinstance(v, Tensor) for v in value.values()):
        return writer.tensors(name, _plain(value))
    return writer.json(name, value)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }


def _sub_seed(seed: int, step: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0])
