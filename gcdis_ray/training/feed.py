"""Parts of coming steps, made in threads while a step is computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor

from gcdis_ray.config import ComputeConfig

STEPS_AHEAD = 3  # with several threads


class Feed:
    """A rank's parts of each step, in order.

    One thread makes those of the next step; several work on those of three. A part is a pure
    function of (seed, step, part), so that no number depends on how many there are.

    On a GPU every thread has a stream of its own: neither copies nor rendering wait for a step that
    computes, and the step waits, on the device, for its own parts alone.

    Args:
        make: (step, part) -> the part's batch; threads call it at the same time.
        parts: of this rank.
    """

    def __init__(
        self,
        make: Callable[[int, int], Any],
        parts: Sequence[int],
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self._make, self._parts, self._device = make, parts, device
        self._threads, self._torch_threads = compute.decode_threads, compute.threads
        self._of_thread = threading.local()

    def steps(self, start: int, stop: int) -> Generator[tuple[int, list[Any]], None, None]:
        """(step, its parts on the device) from ``start`` on. What making a part raises is raised
        when it is its turn."""
        ahead = STEPS_AHEAD if self._threads > 1 else 1
        threads = ThreadPoolExecutor(self._threads, "batches", self._begin)
        waiting: deque[list[Future[Any]]] = deque()
        try:
            for step in range(start, stop):
                if not waiting:
                    waiting.append(self._ask(threads, step))
                made = [self._taken(*part.result()) for part in waiting.popleft()]
                while len(waiting) < min(ahead, stop - step - 1):
                    waiting.append(self._ask(threads, step + 1 + len(waiting)))
                yield step, made
        finally:
            threads.shutdown(cancel_futures=True)

    def _ask(self, threads: ThreadPoolExecutor, step: int) -> list[Future[Any]]:
        # each in a context of its own: what is read there counts as read here
        return [threads.submit(copy_context().run, self._made, step, p) for p in self._parts]

    def _begin(self) -> None:
        """In each thread, first."""
        torch.set_num_threads(self._torch_threads)
        if self._device.type == "cuda":
            self._of_thread.stream = stream = torch.cuda.Stream(self._device)
            stream.wait_stream(torch.cuda.default_stream(self._device))  # the task's own tensors

    def _made(self, step: int, part: int) -> tuple[Any, torch.Event | None]:
        if self._device.type != "cuda":
            return to_device(self._make(step, part), self._device), None
        stream: torch.cuda.Stream = self._of_thread.stream
        with torch.cuda.stream(stream):
            return to_device(self._make(step, part), self._device), stream.record_event()

    def _taken(self, batch: Any, made: torch.Event | None) -> Any:
        if made is not None:
            here = torch.cuda.current_stream(self._device)
            here.wait_event(made)
            each_tensor(batch, lambda tensor: tensor.record_stream(here))
        return batch


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device; to a GPU they go from pinned memory."""

    def move(tensor: Tensor) -> Tensor:
        if device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True)

    return each_tensor(batch, move)


def each_tensor(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same dicts, lists and tuples, with ``change(tensor)`` in place of each tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: each_tensor(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # named tuple
        return type(value)(*(each_tensor(item, change) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(each_tensor(item, change) for item in value)
    return value
