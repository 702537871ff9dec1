"""Trials that measure what their stage takes, in place of running it: many small calls."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.run.pipeline import Event
from gcdis_ray.runtime.choose import LazyRuntime
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.stages.objective import Measurement
from gcdis_ray.sweeps.study import Study
from gcdis_ray.sweeps.trial import TrialBody

ASKED_AT_ONCE = 16  # trials between two looks of a searcher that learns
CALLS_PER_TASK = 4  # enough to hide what a task costs, few enough to share them out

Measure = Callable[[Any], Mapping[str, float]]
Call = tuple[Hashable, Measure]  # name of a sample, what is done with it
Show = Callable[[Event], None]


def measure_all(sample: Any, measures: Sequence[Measure]) -> list[Mapping[str, Any]]:
    """Of each its numbers by name, or ``{"error": line}``. What a task runs."""
    results: list[Mapping[str, Any]] = []
    for measure in measures:
        try:
            results.append(measure(sample))
        except Exception as error:  # one that fails must not end the others
            results.append({"error": line_of(error)})
    return results


@dataclass(frozen=True)
class _Probed:
    """A trial whose inputs are there.

    Args:
        keys: node -> key of its artifact, of those that give what is looked at.
        measurements: one per seed.
    """

    keys: Mapping[str, str]
    measurements: Sequence[Measurement]


def run_probes(study: Study, runtime: LazyRuntime, show_stage: Show) -> None:
    """Run every trial that has not ended."""
    learns = study.spec.searcher == "optuna"
    while True:
        asked: dict[int, Mapping[str, Any]] = {}
        most = ASKED_AT_ONCE if learns else study.total
        while len(asked) < most and (taken := study.take()) is not None:
            asked[taken[0]] = taken[1]
        if not asked:
            return
        _run_batch(study, asked, runtime, show_stage)


def _run_batch(
    study: Study, asked: Mapping[int, Mapping[str, Any]], runtime: LazyRuntime, show_stage: Show
) -> None:
    body = study.body()
    trials: dict[int, _Probed] = {}
    samples: dict[Hashable, Any] = {}
    calls: list[tuple[float, int, int, Call]] = []  # cost, trial, which seed
    for number, values in asked.items():
        try:
            probed = _probe(study, body, values, runtime, show_stage)
            mine: list[tuple[float, int, int, Call]] = []
            for place, measurement in enumerate(probed.measurements):
                name = (*probed.keys.values(), measurement.sample)
                if name not in samples:
                    samples[name] = measurement.load()
                mine.append((measurement.cost, number, place, (name, measurement.measure)))
        except Exception as error:  # a trial that fails must not end the others
            study.ended(number, None, line_of(error))
            continue
        trials[number] = probed
        calls += mine
    calls.sort(key=lambda call: -call[0])  # longest first
    found: dict[int, dict[int, Mapping[str, Any]]] = {number: {} for number in trials}
    for index, result in _measured(study, samples, [call for *_, call in calls], runtime):
        _, number, place, _ = calls[index]
        found[number][place] = result
        if len(found[number]) == len(study.seeds):
            by_seed = [result for _, result in sorted(found[number].items())]
            errors = [result["error"] for result in by_seed if "error" in result]
            outcome = None if errors else _outcome(study, by_seed, trials[number])
            study.ended(number, outcome, errors[0] if errors else None)


def _probe(
    study: Study,
    body: TrialBody,
    values: Mapping[str, Any],
    runtime: LazyRuntime,
    show_stage: Show,
) -> _Probed:
    """Make what the trial looks at, if it is not there."""
    goal, probe = study.goal, study.goal.objective.probe
    assert probe is not None, "other trials run stages"
    pipeline = body.pipeline(values, study.config.seed)
    node = pipeline.nodes[goal.node]
    givers = list(dict.fromkeys(node.takes[member] for member in probe.takes))
    if not all(pipeline.manifest(giver) for giver in givers):
        pipeline.run(runtime, show_stage, until=goal.until)
    inputs = pipeline.inputs(goal.node, probe.takes)
    return _Probed(
        {giver: pipeline.nodes[giver].key for giver in givers},
        [probe.measurement(inputs, node.config, seed) for seed in study.seeds],
    )


def _measured(
    study: Study, samples: Mapping[Hashable, Any], calls: Sequence[Call], runtime: LazyRuntime
) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """(index into calls, numbers) as they come: from tasks, or one after another here."""
    if study.config.compute.runtime == "ray" and calls:
        runtime()
        from gcdis_ray.runtime.ray_tune import run_tasks

        yield from run_tasks(measure_all, samples, calls, CALLS_PER_TASK)
        return
    for index, (name, measure) in enumerate(calls):
        yield index, measure_all(samples[name], [measure])[0]


def _outcome(study: Study, by_seed: Sequence[Mapping[str, Any]], probed: _Probed) -> dict[str, Any]:
    name = study.goal.objective.name
    means = {each: statistics.fmean(of[each] for of in by_seed) for each in by_seed[0]}
    return {
        "objective": means[name],
        "by_seed": [of[name] for of in by_seed],
        "metrics": {**probed.measurements[0].metrics, **means},
        "curve": [],
        "keys": {giver: [key] for giver, key in probed.keys.items()},
    }
