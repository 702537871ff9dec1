"""One live line for a sweep, and its table at the end."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from gcdis_ray.run.progress import Line
from gcdis_ray.sweeps.records import Trial
from gcdis_ray.sweeps.study import Study
from gcdis_ray.words import duration

ROWS = 20  # of the table


class SweepReporter:
    """Draws how far a sweep is; on a terminal in place, else a line every few seconds."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line, self._clock = Line(stream), clock
        self.close = self._line.close
        self._began, self._shown = clock(), -math.inf
        self._study: Study | None = None

    def show(self, study: Study) -> None:
        """Something has changed."""
        self._study = study
        self.draw()

    def ended(self, trial: Trial) -> None:
        """A line for a trial that trained, failed or was found finished."""
        study = self._study
        if study is not None and study.goal.objective.probe and not trial.error:
            return  # hundreds of them
        mark = {"done": "=" if trial.cached else "✓", "stopped": "-", "failed": "✗"}[trial.state]
        value = "" if trial.objective is None else f"{trial.objective:.4f}"
        what = trial.error or ("cached" if trial.cached else duration(trial.seconds))
        self._line.write(
            f"{mark} trial {trial.number:<4} {trial.state:<8}{value:>10}  {what}  "
            f"{_values(trial.values)}",
            keep=True,
        )

    def draw(self) -> None:
        study, now = self._study, self._clock()
        if (
            study is None
            or not (study.running or study.ended_now)
            or now - self._shown < self._line.every_s
        ):
            return
        self._shown = now
        self._line.write(line(study, now - self._began), keep=not self._line.live)


def line(study: Study, seconds: float) -> str:
    """Counts, the best so far, rate and time left."""
    trials = study.trials
    states = Counter(trial.state for trial in trials.values())
    cached = sum(trial.cached for trial in trials.values())
    shown = [f"{states['done']} done"]
    more = {"stopped": states["stopped"], "failed": states["failed"], "cached": cached}
    more["running"] = len(study.running)
    shown += [f"{count} {name}" for name, count in more.items() if count]
    text = f"  trials {len(trials)}/{study.total}  {', '.join(shown)}"
    if (best := study.best()) is not None:
        text += f"  best {best.objective:.4f} (trial {best.number})"
    for number, running in sorted(study.running.items()):
        if running.curve:
            text += f"  trial {number} at step {max(running.curve)}"
    made = sum(not trial.cached for trial in list(study.ended_now.values()))
    if made and seconds > 0:
        per_min = 60 * made / seconds
        left = (study.total - len(trials)) / per_min * 60
        text += f"  {per_min:.3g} trials/min  {duration(left)} left"
    return text


def table(study: Study) -> str:
    """The best trials, best first, then how many of each kind there are."""
    sign = -1 if study.goal.direction == "max" else 1
    order = {"done": 0, "stopped": 1, "failed": 2}
    trials = sorted(
        study.trials.values(),
        key=lambda t: (order[t.state], sign * (t.objective or 0.0), t.number),
    )
    lines = [f"{'trial':>5}  {'state':<8}{study.goal.name:>18}  values"]
    for trial in trials[:ROWS]:
        value = "" if trial.objective is None else f"{trial.objective:.4f}"
        note = f"  {trial.error}" if trial.error else "  (cached)" if trial.cached else ""
        lines.append(
            f"{trial.number:>5}  {trial.state:<8}{value:>18}  {_values(trial.values)}{note}"
        )
    if len(trials) > ROWS:
        lines.append(f"  and {len(trials) - ROWS} more")
    return "\n".join(lines)


def _values(values: Mapping[str, Any]) -> str:
    """Fields by the last parts of their paths that tell them apart."""
    parts = [path.split(".") for path in values]
    size = 1
    while len({tuple(p[-size:]) for p in parts}) < len(parts):
        size += 1
    names = [".".join(p[-size:]) for p in parts]
    shown = [f"{v:.4g}" if isinstance(v, float) else f"{v}" for v in values.values()]
    return "  ".join(f"{name}={value}" for name, value in zip(names, shown, strict=True))
