"""A sweep from start to end: what is shared is made once, then trials until there are no more."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcdis_ray.config import RunConfig
from gcdis_ray.errors import GcdisError
from gcdis_ray.run.pipeline import Event, Pipeline
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.store.artifacts import artifact_key
from gcdis_ray.sweeps.config import (
    SweepConfig,
    Values,
    chosen_values,
    fixed_values,
    goal_of,
    stage_of,
    with_values,
)
from gcdis_ray.sweeps.halving import Halving
from gcdis_ray.sweeps.records import SweepFolder, Trial
from gcdis_ray.sweeps.space import Told, num_trials, propose
from gcdis_ray.sweeps.trial import TrialBody

VERSION = 1  # of what a sweep computes; changes the key of every sweep
_NOT_IN_KEY = {"max_concurrent", "storage", "trackers", "base", "overrides"}


@dataclass
class Running:
    """A trial on its way."""

    values: Values
    began: float
    curve: dict[int, float] = field(default_factory=dict)
    stopping: bool = False


class Study:
    """A sweep on its storage. Implements :class:`gcdis_ray.runtime.base.Trials`."""

    def __init__(
        self,
        spec: SweepConfig,
        base: RunConfig,
        show: Callable[[Study], None] = lambda study: None,
        told: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Args:
        show: called when something has changed.
        told: how far the data's fingerprint is.
        """
        self.spec, self.goal = spec, goal_of(spec, base)
        self.base = Pipeline(base, show=told)
        self.config = base.model_copy(update={"storage": self.base.storage.uri})
        self.seeds = spec.seeds or (base.seed,)
        self.total = num_trials(spec)
        self.fixed = fixed_values(spec, self.goal)
        names = list(self.base.nodes)
        touched = {stage_of(path) for path in (*spec.space, *self.fixed)}
        self.first = min(touched, key=names.index)
        payload = spec.model_dump(mode="json", exclude=_NOT_IN_KEY) | {"seeds": list(self.seeds)}
        self.key = artifact_key(
            "sweep",
            VERSION,
            payload,
            {name: node.key for name, node in self.base.nodes.items()},  # all: it is varied whole
            seed=spec.seed,
        )
        self.folder = SweepFolder(self.base.storage, f"sweeps/{spec.name}-{self.key[:8]}")
        self.ended_now, self.running = dict[int, Trial](), dict[int, Running]()
        self.earlier = self.folder.trials()
        self._asked = self.folder.asked()
        self._halving = Halving(spec.scheduler, self.goal.direction)
        for number, trial in self.earlier.items():
            self._weigh(number, trial.curve)
        self._show = show
        self.listeners: list[Callable[[Trial], None]] = []  # told of each trial that ends now
        self._ahead: tuple[int, Mapping[str, Any]] | None = None

    @property
    def trials(self) -> dict[int, Trial]:
        """Every trial that has ended, by number."""
        return dict(sorted((self.earlier | self.ended_now).items()))

    def best(self) -> Trial | None:
        """Of the trials that were done to the end; the earliest among equals."""
        sign = 1 if self.goal.direction == "max" else -1
        done = [t for t in self.trials.values() if t.state == "done" and t.objective is not None]
        return max(done, key=lambda t: (sign * (t.objective or 0.0), -t.number), default=None)

    def start(self) -> None:
        """Put the sweep itself on record."""
        self.folder.start(
            {
                "name": self.spec.name,
                "key": self.key,
                "spec": self.spec.model_dump(mode="json") | {"seeds": list(self.seeds)},
                "base": self.config.model_dump(mode="json"),
                "oracle": self.goal.oracle,
                "kind": self.goal.kind,
                "objective": self.goal.name,
                "direction": self.goal.direction,
                "space": {p: d.model_dump(mode="json") for p, d in self.spec.space.items()},
                "fixed": self.fixed,
            }
        )

    def shared_stages(self) -> list[str]:
        """Stages that are the same in every trial, up to the first that is not."""
        names = list(self.base.nodes)
        return names[: names.index(self.first)]

    def body(self) -> TrialBody:
        return TrialBody(
            base=self.config.model_dump(mode="json"),
            fixed=self.fixed,
            objective=self.goal.name,
            first=self.first,
            seeds=self.seeds,
            sources={n: self.base.nodes[n].source for n in self.shared_stages()},
            folder=os.getcwd(),
        )

    def take(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial that has not ended and is not on its way: those asked for first."""
        for number in range(self.total):
            if number in self.earlier or number in self.ended_now or number in self.running:
                continue
            values = self._asked.get(number)
            if values is None and self.spec.searcher == "optuna":  # others need no memory
                values = self.folder.ask(number, self._propose(number, self._told()))
            elif values is None:
                values = self._propose(number, {})
            values = {path: values[path] for path in self.spec.space}
            self.running[number] = Running(values, time.monotonic())
            return number, values
        return None

    def _propose(self, number: int, told: Mapping[int, Told]) -> dict[str, Any]:
        return propose(self.spec, number, told, self.goal.direction)

    def _told(self) -> dict[int, Told]:
        told = {n: Told(running.values, "running", None) for n, running in self.running.items()}
        for number, trial in self.trials.items():
            step = int(trial.curve[-1]["step"]) if trial.curve else None
            told[number] = Told(trial.values, trial.state, trial.objective, step)
        return told

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """As :meth:`take`; trials whose artifacts all exist are put on record on the way."""
        if self._ahead is not None:
            taken, self._ahead = self._ahead, None
            return taken
        body = self.body()
        while (taken := self.take()) is not None:
            number, values = taken
            try:
                outcome = body.cached(values)
            except Exception as error:
                self.ended(number, None, line_of(error))
                continue
            if outcome is None:
                self._show(self)
                return taken
            self.ended(number, outcome, None, cached=True)
        return None

    def is_over(self) -> bool:
        """Whether no trial is left that would have to run."""
        self._ahead = self._ahead or self.next()
        return self._ahead is None

    def _weigh(self, number: int, curve: Iterable[Mapping[str, float]]) -> None:
        """Let later trials be compared with a curve that nobody told on the way."""
        for point in curve:
            if math.isfinite(point["value"]):
                self._halving.report(number, int(point["step"]), point["value"])

    def told(self, number: int, step: int, value: float) -> bool:
        running = self.running.get(number)
        if running is None or not math.isfinite(value):
            return False
        running.curve[step] = value
        running.stopping = running.stopping or self._halving.report(number, step, value)
        return running.stopping

    def ended(
        self,
        number: int,
        outcome: Mapping[str, Any] | None,
        error: str | None,
        cached: bool = False,
    ) -> None:
        running = self.running.pop(number)
        on_the_way = tuple({"step": s, "value": v} for s, v in sorted(running.curve.items()))
        seconds = 0.0 if cached else round(time.monotonic() - running.began, 3)
        if outcome is not None and not math.isfinite(outcome["objective"]):
            outcome, error = None, f"the objective is {outcome['objective']}, not a number"
        if outcome is not None:
            self._weigh(number, outcome["curve"])
            trial = Trial(
                number, running.values, "done", outcome["objective"], tuple(outcome["by_seed"]),
                outcome["metrics"], tuple(outcome["curve"]) or on_the_way,
                {stage: tuple(keys) for stage, keys in outcome["keys"].items()}, seconds, cached,
            )  # fmt: skip
        elif running.stopping and error is None:
            last = on_the_way[-1]["value"]
            trial = Trial(
                number, running.values, "stopped", last, curve=on_the_way, seconds=seconds
            )
        else:
            trial = Trial(
                number, running.values, "failed", curve=on_the_way, seconds=seconds,
                error=error or "ended without a result",
            )  # fmt: skip
        self.ended_now[number] = trial = self.folder.end(trial)
        for tell in self.listeners:
            tell(trial)
        self._show(self)

    def finish(self) -> tuple[Trial, RunConfig]:
        """Write the result and the chosen config.

        Raises:
            GcdisError: no trial was done.
        """
        best = self.best()
        if best is None:
            failed = [t for t in self.trials.values() if t.error]
            raise GcdisError(
                f"no trial was done to the end; trial {failed[0].number}: {failed[0].error}"
                if failed
                else "no trial was done to the end",
                where=self.folder.uri,
                fix="change the space or the base config: that makes a new sweep",
            )
        values = {**best.values, **chosen_values(self.goal)}
        chosen = with_values(self.config, values, where="the chosen config")
        if self.goal.oracle:
            chosen = chosen.model_copy(update={"oracle": True})
        result = {
            "best": best.number,
            "objective": best.objective,
            "values": dict(best.values),
            "interval": [min(best.by_seed), max(best.by_seed)] if len(best.by_seed) > 1 else None,
        }
        self.folder.finish(result, chosen.model_dump(mode="json"))
        return best, chosen
