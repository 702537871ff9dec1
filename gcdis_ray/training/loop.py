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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load as decode_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor

from gcdis_ray.artifacts import FileRecord
from gcdis_ray.errors import DataError
from gcdis_ray.runtime.base import FitPlan, MemberWriter, Progress
from gcdis_ray.storage import open_storage
from gcdis_ray.training.checkpoints import Checkpoints, Snapshots
from gcdis_ray.training.exchange import GroupExchange, parts_of_rank, rank
from gcdis_ray.training.history import History
from gcdis_ray.training.schedule import learning_rate
from gcdis_ray.training.strategy import build_strategy, check_layout, read_tensors
from gcdis_ray.training.task import TrainingTask

PROGRESS_EVERY_S = 0.5
HISTORY_ROWS = 200  # per curve


def train(
    task: TrainingTask,
    plan: FitPlan,
    checkpoints: Checkpoints,
    device: torch.device,
    progress: Callable[[Progress], None],
) -> dict[str, list[FileRecord]]:
    """Train from the newest checkpoint to the end. Called on every rank.

    Args:
        progress: called on rank 0, at most every half second and at the end.

    Returns:
        the members written, on rank 0: final weights, snapshots, history and what the task
        exports. Empty on other ranks.

    Raises:
        DataError: a loss that is not finite, naming the step.
        ConfigError: a checkpoint of another strategy or, with ZeRO, another number of workers.
    """
    with _threads(plan.compute.threads):
        return _Run(task, plan, checkpoints, device, progress).run()


class _Run:
    """One rank's share of one training run."""

    def __init__(
        self,
        task: TrainingTask,
        plan: FitPlan,
        checkpoints: Checkpoints,
        device: torch.device,
        progress: Callable[[Progress], None],
    ) -> None:
        self._task, self._plan, self._checkpoints = task, plan, checkpoints
        self._device, self._progress = device, progress
        self._config = task.config
        self._exchange = GroupExchange()
        self._parts = parts_of_rank(self._config.micro_batches)
        self._snapshots = Snapshots(open_storage(plan.scratch_uri, plan.scratch_endpoint))
        torch.manual_seed(task.seed)
        self._module = task.setup(device)
        buffers = list(self._module.buffers())
        self._buffers = [b for b in buffers if b.is_floating_point()]
        self._counters = [b for b in buffers if not b.is_floating_point()]
        self._strategy = build_strategy(self._module, self._config, plan.compute, device)
        self._history = History(max(1, self._config.steps // HISTORY_ROWS))
        self._checkpointed_at = time.monotonic()
        self._told_at = -math.inf

    def run(self) -> dict[str, list[FileRecord]]:
        start, steps = self._resume(), self._config.steps
        self._tell(start, "resumed" if start else "")
        for step, batches in self._batches_ahead(start, steps):
            values, due = self._step(step, batches)
            finished = step + 1
            self._history.add(finished, values, last=finished == steps)
            if self._task.is_snapshot(finished) and rank() == 0:
                self._snapshots.write(finished, encode_tensors(_plain(self._task.snapshot())))
            if due or finished == steps:
                self._save(finished)
            if finished == steps or time.monotonic() - self._told_at > PROGRESS_EVERY_S:
                self._tell(finished, f"loss {values['total']:.3f}")
        return self._export(self._plan.writer) if rank() == 0 else {}

    def _batches_ahead(self, start: int, steps: int) -> Iterator[tuple[int, Sequence[Any]]]:
        """(step, this rank's parts); the next step's are made in a thread while one computes."""

        def make(step: int) -> list[Any]:
            return [_to(self._task.batch(step, part), self._device) for part in self._parts]

        threads = self._plan.compute.threads
        with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (threads,)) as ahead:
            waiting = ahead.submit(make, start) if start < steps else None
            for step in range(start, steps):
                batches = waiting.result() if waiting else []
                waiting = ahead.submit(make, step + 1) if step + 1 < steps else None
                yield step, batches

    def _step(self, step: int, batches: Sequence[Any]) -> tuple[dict[str, float], bool]:
        """One optimiser step. Returns values to log (means over parts), and whether rank 0 wants
        a checkpoint: ranks save together, but only one clock may decide when."""
        batches = self._task.prepare(batches, self._exchange)
        due = time.monotonic() - self._checkpointed_at >= self._plan.compute.checkpoint_every_s
        before, counters = self._flat_buffers(), [c.clone() for c in self._counters]
        rows, names = [], []
        for index, (part, batch) in enumerate(zip(self._parts, batches, strict=True)):
            torch.manual_seed(_sub_seed(self._task.seed, step, part))
            if index:  # every part starts from the state before the step
                self._set_buffers(before)
                for counter, value in zip(self._counters, counters, strict=True):
                    counter.copy_(value)
            losses = self._strategy.part(batch, last=index == len(batches) - 1)
            names = sorted(losses)
            logged = [torch.tensor(float(due), device=self._device)]
            logged += [losses[name].float() for name in names]
            rows.append(torch.cat([torch.stack(logged), self._flat_buffers() - before])[None])
        rows_P = self._exchange.rows(rows)  # P parts of the step: due, losses, changes of buffers
        self._set_buffers(before + rows_P[:, 1 + len(names) :].mean(0))
        columns = rows_P[:, 1 : 1 + len(names)].T.tolist()
        values = {n: math.fsum(v) / len(v) for n, v in zip(names, columns, strict=True)}
        self._check_finite(step, values)
        lr = learning_rate(self._config, step)
        self._strategy.step(lr)
        torch.manual_seed(_sub_seed(self._task.seed, step, self._config.micro_batches))
        values |= self._task.after_step(step, self._exchange)
        return {**values, "lr": lr}, bool(rows_P[0, 0] > 0)

    def _check_finite(self, step: int, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DataError(
                f"loss is not finite at step {step + 1}: {', '.join(bad)}",
                where=f"training of {self._task.member}",
                fix="lower training.lr, raise training.warmup or set training.clip_norm",
            )

    def _flat_buffers(self) -> Tensor:
        """Float buffers of the module, as one fp32 vector (empty if there are none)."""
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
                    "task": self._task.state(),
                    "history": self._history.state(),
                }
                torch.save(state, folder / "state.pt")
            self._strategy.save(folder)

        writes = rank() == 0 or self._strategy.sharded
        self._checkpoints.save(finished, write if writes else None)
        self._checkpointed_at = time.monotonic()

    def _resume(self) -> int:
        """Load the newest checkpoint. Returns the number of finished steps."""
        with self._checkpoints.latest() as folder:
            if folder is None:
                return 0
            state = read_tensors(folder / "state.pt")
            check_layout(state["layout"], self._strategy.layout, self._plan.scratch_uri)
            self._module.load_state_dict(state["module"])
            self._strategy.load(folder)
        self._task.load_state(state["task"])
        self._history.load_state(state["history"])
        return state["step"]

    def _tell(self, finished: int, note: str) -> None:
        self._told_at = time.monotonic()
        if rank() == 0:
            self._progress(Progress(finished, self._config.steps, "steps", note))

    def _export(self, writer: MemberWriter) -> dict[str, list[FileRecord]]:
        members: dict[str, FileRecord] = {}
        for step in range(1, self._config.steps + 1):
            if self._task.is_snapshot(step):
                name = f"snapshot_{step}"
                members[name] = writer.tensors(name, decode_tensors(self._snapshots.read(step)))
        members[self._task.member] = writer.tensors(
            self._task.member, _plain(self._task.snapshot())
        )
        members["history"] = writer.table("history", self._history.table())
        for name, value in self._task.export().items():
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


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # named tuple
        return type(value)(*(_to(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value


def _sub_seed(seed: int, step: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, step, part]).generate_state(1, np.uint64)[0])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's threads for the time of a run: results depend on them, so the config says."""
    earlier = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(earlier)
