"""Training curves: averages of logged values over windows of steps, part of every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gcdis_ray.store.schemas import HISTORY


class History:
    """Collects values per step; every ``every`` steps their means become rows."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._rows: list[tuple[int, str, float]] = []
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, step: int, values: Mapping[str, float], *, last: bool) -> None:
        """Values of one step.

        Args:
            step: number of finished steps, this one included.
            last: no step follows: close the window whatever its length.
        """
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        if last or step % self._every == 0:
            self._rows += [(step, name, total / n) for name, (total, n) in self._sums.items()]
            self._sums = {}

    def state(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {
            "rows": [list(row) for row in self._rows],
            "sums": {name: list(pair) for name, pair in self._sums.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._rows = [(step, name, value) for step, name, value in state["rows"]]
        self._sums = {name: (total, count) for name, (total, count) in state["sums"].items()}

    def table(self) -> pa.Table:
        """Schema ``history``: step, name, value; in order of steps."""
        steps, names, values = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return pa.table([list(steps), list(names), list(values)], schema=HISTORY)
