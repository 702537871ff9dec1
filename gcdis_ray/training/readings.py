"""Numbers of a step on their way from the device to the host, without stopping the device.

Reading a number of the step that was just enqueued makes the host wait until the device has done
it, and the device then waits for the host to enqueue the next one. So rows are copied to the host
in the background and read when a later step has been enqueued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """What a step had to say.

    Attributes:
        step: its number, from 0.
        names: of ``values``.
        values: P parts of the step by names: :meth:`Readings.take` turns them to floats.
    """

    step: int
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


class Readings:
    """A queue of readings.

    Args:
        lag: steps that may be enqueued after one before it is read: 1 on a GPU; 0 where reading
            costs nothing.
    """

    def __init__(self, device: torch.device, lag: int | None = None) -> None:
        self._lag = int(device.type == "cuda") if lag is None else lag
        self._waiting: deque[tuple[int, tuple[str, ...], Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, names: Sequence[str], values_PV: Tensor) -> None:
        """Start the copy of a step's values, (parts, names)."""
        event = None
        if values_PV.device.type == "cuda":
            host = torch.empty(values_PV.shape, dtype=values_PV.dtype, pin_memory=True)
            values_PV = host.copy_(values_PV, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._waiting.append((step, tuple(names), values_PV, event))

    def take(self, *, everything: bool = False) -> Iterator[Reading]:
        """Those that lie at least ``lag`` steps back, or all, in the order of steps."""
        while len(self._waiting) > (0 if everything else self._lag):
            step, names, values_PV, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            yield Reading(step, names, tuple(map(tuple, values_PV.tolist())))
