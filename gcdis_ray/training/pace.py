"""How fast a training goes: samples a second, waiting for data, memory and use of the GPU.

All of it depends on the clock and the machine, so none of it is in a member of an artifact: two
runs that end with equal bytes differ in it. It travels with a training's
:class:`~gcdis_ray.training.plan.Progress`, and its course ends in the manifest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gcdis_ray.words import size

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
ROWS = 200  # of a course: at least half as many, once a training is that long


@dataclass(frozen=True)
class Pace:
    """Some steps of a training, as rank 0 saw them. Those that follow one another can be added.

    Attributes:
        steps: how many.
        samples: that all workers together learned from.
        seconds: that they took, checkpoints included.
        waited_s: of these, for batches that were not ready. A GPU may be at work on earlier steps
            meanwhile, so this is the most that it can have lacked data.
        gpu_memory_bytes: the most that torch has taken of rank 0's GPU since the training began; 0
            without a GPU.
        gpu_use: share of the time, in [0, 1], that anything ran on that GPU, as its driver tells;
            None without a GPU, or without the package nvidia-ml-py, by which torch asks.
    """

    steps: int
    samples: int
    seconds: float
    waited_s: float
    gpu_memory_bytes: int = 0
    gpu_use: float | None = None

    @property
    def step_s(self) -> float:
        return self.seconds / self.steps

    @property
    def samples_per_s(self) -> float:
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time, in [0, 1]."""
        return min(1.0, self.waited_s / self.seconds) if self.seconds else 0.0

    def __add__(self, later: Pace) -> Pace:
        seconds = self.seconds + later.seconds
        uses = [(p.gpu_use, p.seconds) for p in (self, later) if p.gpu_use is not None]
        asked = sum(share for _, share in uses)
        return Pace(
            self.steps + later.steps,
            self.samples + later.samples,
            seconds,
            self.waited_s + later.waited_s,
            max(self.gpu_memory_bytes, later.gpu_memory_bytes),
            sum(use * share for use, share in uses) / asked if asked else None,
        )

    def __str__(self) -> str:
        """``412 samples/s, waits 3 %``, and of a GPU ``GPU 31.2 GB, 97 % busy``."""
        rate = self.samples_per_s
        text = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        text += f" samples/s, waits {100 * self.data_wait:.0f} %"
        if self.gpu_memory_bytes:
            text += f", GPU {size(self.gpu_memory_bytes)}"
        return text if self.gpu_use is None else f"{text}, {100 * self.gpu_use:.0f} % busy"


class PaceMeter:
    """Measures one rank's run. Reads nothing from the device.

    Args:
        batch_size: samples per step over all workers.
    """

    def __init__(
        self,
        batch_size: int,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batch_size, self._clock = batch_size, clock
        self._gpu = Gpu(device) if device.type == "cuda" else None
        self._steps, self._waited_s, self._since = 0, 0.0, clock()

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of one step after another, as they are asked for."""
        waiting = iter(batches)
        self._since = self._clock()
        while True:
            asked = self._clock()
            try:
                batch = next(waiting)
            except StopIteration:
                return
            self._waited_s += self._clock() - asked
            self._steps += 1
            yield batch

    def take(self) -> Pace | None:
        """Of the steps since the last call; None if there were none."""
        if not self._steps:
            return None
        now, memory, use = self._clock(), 0, None
        if self._gpu is not None:
            memory, use = self._gpu.memory_bytes(), self._gpu.use()
        samples = self._steps * self._batch_size
        pace = Pace(self._steps, samples, now - self._since, self._waited_s, memory, use)
        self._steps, self._waited_s, self._since = 0, 0.0, now
        return pace


class Gpu:
    """What torch and the driver tell of a GPU."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._cuda, self._device, self._tells = torch.cuda, device, True
        torch.cuda.reset_peak_memory_stats(device)

    def memory_bytes(self) -> int:
        return self._cuda.max_memory_reserved(self._device)

    def use(self) -> float | None:
        """Over the driver's last sample, a sixth of a second to a second."""
        if self._tells:
            try:
                return self._cuda.utilization(self._device) / 100
            except Exception:  # no nvidia-ml-py; a slice of a GPU, or a container that may not ask:
                self._tells = False  # no reason to end a training, nor to ask again
        return None


class Course:
    """How the pace of a training went, in a bounded number of rows whatever its length."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, Pace]] = []  # finished steps, pace up to there

    def add(self, done: int, pace: Pace) -> None:
        self._rows.append((done, pace))
        if len(self._rows) == ROWS:
            pairs = zip(self._rows[::2], self._rows[1::2], strict=True)
            self._rows = [(done, earlier + later) for (_, earlier), (done, later) in pairs]

    def columns(self) -> dict[str, list[float | None]]:
        """``step``, ``samples_per_s``, ``data_wait``, and of a GPU ``gpu_memory_bytes`` and
        ``gpu_use``, each with a value per row; nothing of a training that took no step."""
        if not self._rows:
            return {}
        found: dict[str, list[float | None]] = {
            "step": [done for done, _ in self._rows],
            "samples_per_s": [round(pace.samples_per_s, 3) for _, pace in self._rows],
            "data_wait": [round(pace.data_wait, 4) for _, pace in self._rows],
        }
        if any(pace.gpu_memory_bytes for _, pace in self._rows):
            found["gpu_memory_bytes"] = [pace.gpu_memory_bytes for _, pace in self._rows]
            uses = [pace.gpu_use for _, pace in self._rows]
            found["gpu_use"] = [None if use is None else round(use, 3) for use in uses]
        return found
