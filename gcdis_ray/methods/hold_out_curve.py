"""How well crops with withheld labels are sorted while a method trains.

Shape letter: M crops looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts
from gcdis_ray.methods.tables import HOLDOUT_CURVE


class HoldOutCurve:
    """Measured on a sample of the crops whose labels are withheld; empty without a hold-out.

    Args:
        labels_N: int64 on the CPU, known class of each crop, withheld or not; -1 for none.
    """

    def __init__(self, problem: Problem, labels_N: Tensor) -> None:
        self._hold_out = hold_out = problem.hold_out
        self._every = problem.measure_every if hold_out else 0
        self._points: list[list[float]] = []  # finished steps, score
        if hold_out is not None:
            self._rows, self._classes = hold_out.sample(labels_N.numpy())

    def is_due(self, finished: int) -> bool:
        return self._every > 0 and finished % self._every == 0

    def measure(
        self, finished: int, parts: StepParts, clusters_of: Callable[[Tensor], Tensor]
    ) -> None:
        """One point, after ``finished`` steps.

        Args:
            clusters_of: rows (n,) -> cluster of each, (n,) int64.
        """
        assert self._hold_out is not None
        rows_M = torch.from_numpy(self._rows)
        (clusters_M,) = parts.look(rows_M, lambda rows: [clusters_of(rows)])
        score = self._hold_out.score(clusters_M.cpu().numpy(), self._classes).mean
        if score is not None:
            self._points.append([finished, score])

    def at(self, finished: int) -> Mapping[str, float]:
        """``holdout_accuracy``, if it was measured just then."""
        if self._points and self._points[-1][0] == finished:
            return {"holdout_accuracy": self._points[-1][1]}
        return {}

    def members(self) -> Mapping[str, pa.Table]:
        """Table ``holdout_curve``; nothing without a hold-out."""
        if self._hold_out is None:
            return {}
        steps, accuracies = [int(p[0]) for p in self._points], [p[1] for p in self._points]
        return {"holdout_curve": pa.table([steps, accuracies], schema=HOLDOUT_CURVE)}

    def state(self) -> Mapping[str, Any]:
        return {"points": self._points}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._points = [list(point) for point in state["points"]]
