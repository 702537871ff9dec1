"""Trials that train nothing: for what a runtime does with trials."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcdis_ray.errors import DataError, StorageError


@dataclass(frozen=True)
class ToyTrial:
    """A trial function: tells its value at every step, and leaves a file while it runs."""

    folder: str
    steps: int = 3

    def __call__(
        self, values: Mapping[str, Any], tell: Callable[[int, float], None]
    ) -> Mapping[str, Any]:
        name, value = f"{values['kind']}-{values['value']}", float(values["value"])
        running = Path(self.folder, f"{name}.running")
        running.touch()
        others = len(list(Path(self.folder).glob("*.running")))
        try:
            if values["kind"] == "mistake":
                raise DataError("photo 17 is broken", where="photo 17")
            if values["kind"] == "outage":
                raise StorageError("S3 cannot be reached", where="s3://bucket")
            if values["kind"] == "crash":
                raise ZeroDivisionError("a fault of the code")
            died = Path(self.folder, f"{name}.died")
            if values["kind"] == "dies" and not died.exists():
                died.touch()
                running.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            steps = 10_000 if values["kind"] == "endless" else self.steps
            for step in range(1, steps + 1):
                tell(step, value)
                time.sleep(0.02)
        finally:
            running.unlink(missing_ok=True)
        return {"objective": value, "at_a_time": others, "nested": {"list": [1, None]}}


@dataclass
class ToyTrials:
    """Implements gcdis_ray.runtime.base.Trials: hands out a list, stops what is endless."""

    todo: list[dict[str, Any]]
    outcomes: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, str | None] = field(default_factory=dict)
    curves: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    stop_at: int = 5
    fail_at: int | None = None  # number of a trial whose end cannot be put on record

    def __post_init__(self) -> None:
        self._next = 0

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        if self._next == len(self.todo):
            return None
        self._next += 1
        return self._next - 1, self.todo[self._next - 1]

    def told(self, number: int, step: int, value: float) -> bool:
        self.curves.setdefault(number, []).append((step, value))
        return step >= self.stop_at

    def ended(self, number: int, outcome: Mapping[str, Any] | None, error: str | None) -> None:
        if number == self.fail_at:
            raise DataError("the record cannot be written", where="here")
        self.outcomes[number], self.errors[number] = outcome, error


def square(shared: int, arguments: Sequence[int]) -> list[Any]:
    """A task: per argument what it was given, its square and where it ran."""
    return [(shared, x, x * x, os.getpid()) for x in arguments]
