"""Bytes read and written by a piece of work, counted where files are read and written.

A meter belongs to a context: work handed to a thread is counted if it runs in a copy of it
(:func:`contextvars.copy_context`). Where nobody meters, counting does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """Sums of one piece of work. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read_bytes = self.written_bytes = 0

    def add(self, read_bytes: int = 0, written_bytes: int = 0) -> None:
        with self._lock:
            self.read_bytes += read_bytes
            self.written_bytes += written_bytes

    def amounts(self) -> dict[str, int]:
        return {"read_bytes": self.read_bytes, "written_bytes": self.written_bytes}


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metering() -> Iterator[Meter]:
    """Counts what happens inside, and nothing of it for whoever metered outside."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def count(read_bytes: int = 0, written_bytes: int = 0) -> None:
    """Add to the meter of this context, if there is one. Also for what a worker has metered."""
    if meter := _METER.get():
        meter.add(read_bytes, written_bytes)
