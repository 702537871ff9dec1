"""What a sweep's page is made from: its description, its ended trials, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SweepView:
    """One sweep, finished or not, as plain data.

    Args:
        uri: its folder or prefix; what ``gcdis run --from-sweep`` takes.
        sweep: the document ``sweep.json``.
        trials: the documents ``trials/*.json``, by number.
        result: the document ``result.json``; None while trials are missing.
        best_config: the chosen config as YAML text; None while there is no result.
    """

    uri: str
    sweep: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None = None
    best_config: str | None = None

    @property
    def larger_is_better(self) -> bool:
        return self.sweep["direction"] == "max"

    def scored(self) -> list[Mapping[str, Any]]:
        """Trials that went to their end with an objective, the best first."""
        found = [t for t in self.trials if t["state"] == "done" and _is_number(t["objective"])]
        sign = -1 if self.larger_is_better else 1
        return sorted(found, key=lambda t: (sign * t["objective"], t["number"]))

    def drawn(self) -> list[Mapping[str, Any]]:
        """Trials with an objective, stopped early or not, worst first: the best is drawn on top."""
        found = [t for t in self.trials if _is_number(t["objective"])]
        sign = 1 if self.larger_is_better else -1
        return sorted(found, key=lambda t: (t["state"] == "done", sign * t["objective"]))

    def fields(self) -> list[Field]:
        """The fields searched, the one that mattered most first."""
        found = [
            Field(path, _short_names(self.sweep["space"])[path], space, self._importance(path))
            for path, space in self.sweep["space"].items()
        ]
        return sorted(found, key=lambda f: (-(f.importance or 0.0), f.path))

    def as_good(self) -> tuple[float, float] | None:
        """Where one number was searched over several seeds: the lowest and highest value next to
        the best one that are as good as it within its standard deviation over seeds."""
        scored, (path, *more) = self.scored(), self.sweep["space"]
        if more or not scored or not all(_is_number(t["values"].get(path)) for t in scored):
            return None
        best, seeds = scored[0], scored[0]["by_seed"]
        if len(seeds) < 2:
            return None
        worst = float(np.std(seeds, ddof=1))
        ordered = sorted(scored, key=lambda t: (t["values"][path], t["number"]))
        good = [abs(t["objective"] - best["objective"]) <= worst for t in ordered]
        low = high = ordered.index(best)
        while low > 0 and good[low - 1]:
            low -= 1
        while high + 1 < len(good) and good[high + 1]:
            high += 1
        return ordered[low]["values"][path], ordered[high]["values"][path]

    def _importance(self, path: str) -> float | None:
        trials = self.scored()
        if len(trials) < 3:
            return None
        values = [t["values"].get(path) for t in trials]
        return importance(values, [float(t["objective"]) for t in trials])


@dataclass(frozen=True)
class Field:
    """A searched config field.

    Args:
        name: the shortest end of its path that no other field shares.
        space: what its values are drawn from, ``{kind: ..., ...}``, as in the sweep file.
        importance: see :func:`importance`.
    """

    path: str
    name: str
    space: Mapping[str, Any]
    importance: float | None

    @property
    def logarithmic(self) -> bool:
        return str(self.space["kind"]).startswith("log")


def importance(values: Sequence[Any], objectives: Sequence[float]) -> float | None:
    """Share in [0, 1] of the objective's variance that goes with one field alone.

    Numbers: the square of Spearman's rank correlation. Anything else: the correlation ratio, the
    variance between groups of equal values over all variance. Both see one field at a time, and
    with few trials both are noise. None where nothing varies.
    """
    target = np.asarray(objectives, dtype=np.float64)
    if len(set(map(repr, values))) < 2 or np.ptp(target) == 0:
        return None
    if all(_is_number(v) for v in values):
        from scipy.stats import rankdata

        ranks = rankdata(np.asarray(values, dtype=np.float64)), rankdata(target)
        return float(np.corrcoef(*ranks)[0, 1] ** 2)
    groups: dict[str, list[float]] = {}
    for value, objective in zip(values, target.tolist(), strict=True):
        groups.setdefault(repr(value), []).append(objective)
    between = sum(len(g) * (float(np.mean(g)) - target.mean()) ** 2 for g in groups.values())
    return float(between / ((target - target.mean()) ** 2).sum())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short_names(paths: Mapping[str, Any]) -> dict[str, str]:
    """Each path's shortest ending that tells it from the others."""
    names = {}
    for path in paths:
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(f".{other}".endswith(f".{name}") for other in paths) == 1:
                break
        names[path] = name
    return names
