"""One trial: the pipeline under other values, once per seed, until the objective is known.

Its artifacts have their ordinary keys in the ordinary storage. So a trial equal to an earlier run
costs nothing, and one that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcdis_ray.run.graph import make_config
from gcdis_ray.run.pipeline import Event, Pipeline
from gcdis_ray.runtime.choose import LazyRuntime
from gcdis_ray.stages.objective import Reading
from gcdis_ray.sweeps.config import Values, with_values
from gcdis_ray.sweeps.objectives import Goal, goals

Tell = Callable[[int, float], None]  # training step, value; raises Stopped to end the trial


@dataclass(frozen=True)
class TrialBody:
    """What all trials of a sweep share. Small and plain, so that it pickles to wherever they run.

    Args:
        base: the base config as plain data; its storage can be reached from there.
        fixed: values that hold in every trial.
        first: the first stage that differs between trials.
        seeds: of ``first`` and the stages after it.
        sources: fingerprints of outside data of the stages before ``first``.
        folder: the driver's working directory: relative paths in the config are below it.
    """

    base: Mapping[str, Any]
    fixed: Values
    objective: str
    first: str
    seeds: tuple[int, ...]
    sources: Mapping[str, str | None]
    folder: str

    @property
    def goal(self) -> Goal:
        return goals(self.base["recipe"])[self.objective]

    def pipeline(self, values: Values, seed: int) -> Pipeline:
        config = make_config(self.base, where="base config of the sweep")
        config = with_values(config, {**values, **self.fixed}, where="values of the trial")
        return Pipeline(config, sources=self.sources, reseed=(self.first, seed))

    def cached(self, values: Values) -> dict[str, Any] | None:
        """The outcome of a trial whose artifacts all exist; None if one is missing."""
        node = self.goal.node
        pipelines = [self.pipeline(values, seed) for seed in self.seeds]
        if not all(pipeline.manifest(node) for pipeline in pipelines):
            return None
        return self._outcome(pipelines)

    def __call__(self, values: Values, tell: Tell) -> dict[str, Any]:
        """Run a trial to its end.

        Args:
            tell: called with values of the objective on the way, of the first seed; while the
                others run, with its last one again, so that they, too, can be ended.

        Returns:
            objective, by_seed, metrics, curve and keys of :class:`~.records.Trial`.
        """
        if Path(self.folder).is_dir():  # not so on another node of a cluster
            os.chdir(self.folder)
        goal, live = self.goal, self.goal.objective.live
        pipelines = [self.pipeline(values, seed) for seed in self.seeds]
        runtime = LazyRuntime(pipelines[0].config.compute)

        last: tuple[int, float] | None = None

        def show(event: Event) -> None:
            nonlocal last
            at = event.progress
            if at and at.done and event.stage == goal.node:
                value = at.loss if live == "loss" else at.values.get(live or "")
                if value is not None:
                    last = at.done, value
                    tell(*last)

        def show_again(event: Event) -> None:
            if event.progress and event.stage == goal.node and last:
                tell(*last)

        try:
            for number, pipeline in enumerate(pipelines):
                pipeline.run(runtime, show if number == 0 else show_again, until=goal.node)
        finally:
            runtime.close()
        return self._outcome(pipelines)

    def _outcome(self, pipelines: list[Pipeline]) -> dict[str, Any]:
        goal = self.goal
        readings: list[Reading] = []
        keys: dict[str, list[str]] = {}
        for pipeline in pipelines:
            artifact = pipeline.artifact(goal.node)
            assert artifact is not None, "the pipeline has just made it"
            readings.append(goal.read(artifact))
            names = list(pipeline.nodes)
            for name in names[names.index(self.first) : names.index(goal.node) + 1]:
                keys.setdefault(name, []).append(pipeline.nodes[name].key)
        by_seed = [float(reading.value) for reading in readings if reading.value is not None]
        return {
            "objective": statistics.fmean(by_seed),
            "by_seed": by_seed,
            "metrics": dict(readings[0].metrics),
            "curve": [{"step": step, "value": value} for step, value in readings[0].curve],
            "keys": keys,
        }
