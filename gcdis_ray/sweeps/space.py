"""Which values a trial takes: a function of the sweep, the trial's number and what is known so far.

Nothing is kept between calls. A killed sweep that asks again with the same results gets the same
answer, and what a trial was given is on record before it starts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcdis_ray.errors import ConfigError
from gcdis_ray.stages.objective import Direction
from gcdis_ray.sweeps.config import Dimension, IntSpan, Listed, Span, SweepConfig, Values

DEFAULT_TRIALS = 20
MAX_TRIALS = 1_000_000


@dataclass(frozen=True)
class Told:
    """A trial the searcher can learn from. ``state`` done | stopped | failed | running;
    ``objective`` the last one known, None if there is none."""

    values: Values
    state: str
    objective: float | None
    step: int | None = None  # of the objective of a stopped trial


def num_trials(spec: SweepConfig) -> int:
    """Raises ConfigError: the grid has more than ``MAX_TRIALS`` points."""
    if spec.searcher != "grid":
        return spec.trials or DEFAULT_TRIALS
    total = math.prod(_size(dimension) for dimension in spec.space.values())
    if total > MAX_TRIALS:
        raise ConfigError(
            f"the grid has {total:,} points, at most {MAX_TRIALS:,} are tried",
            where="space",
            fix="give fewer values or a larger step, or use searcher: random or optuna",
        )
    return total


def _size(dimension: Dimension) -> int:
    """Values on a grid; ``len`` of a range has a limit."""
    if isinstance(dimension, IntSpan):
        return (dimension.high - dimension.low) // dimension.step + 1
    return len(dimension.extremes())


def propose(
    spec: SweepConfig, number: int, told: Mapping[int, Told], direction: Direction = "max"
) -> dict[str, Any]:
    """Values of trial ``number``, 0 or more: dotted path -> value.

    Args:
        direction: of the objective; only a searcher that learns asks.
    """
    if spec.searcher == "grid":
        lists = [_listed(dimension) for dimension in spec.space.values()]
        point = next(itertools.islice(itertools.product(*lists), number, None))
        return dict(zip(spec.space, point, strict=True))
    if spec.searcher == "random":
        rng = np.random.default_rng([spec.seed, number])
        return {path: _draw(dimension, rng) for path, dimension in spec.space.items()}
    return _optuna(spec, number, told, direction)


def _listed(dimension: Dimension) -> Sequence[Any]:
    if isinstance(dimension, IntSpan):
        return range(dimension.low, dimension.high + 1, dimension.step)
    return dimension.extremes()


def _draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    if isinstance(dimension, Listed):
        return dimension.values[int(rng.integers(len(dimension.values)))]
    if isinstance(dimension, Span):
        if dimension.kind == "uniform":
            return float(rng.uniform(dimension.low, dimension.high))
        value = math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high)))
        return min(max(value, dimension.low), dimension.high)
    if dimension.kind == "int":
        return int(rng.choice(len(_listed(dimension)))) * dimension.step + dimension.low
    value = math.exp(rng.uniform(math.log(dimension.low - 0.5), math.log(dimension.high + 0.5)))
    return min(max(round(value), dimension.low), dimension.high)


def _optuna(
    spec: SweepConfig, number: int, told: Mapping[int, Told], direction: Direction
) -> dict[str, Any]:
    """Tree-structured Parzen estimator on the trials told; running ones count as bad guesses."""
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import TrialState, create_trial

    def distribution(dimension: Dimension) -> BaseDistribution:
        if isinstance(dimension, Listed):  # by place in the list: Optuna takes plain values only
            return CategoricalDistribution(range(len(dimension.values)))
        if isinstance(dimension, Span):
            return FloatDistribution(
                dimension.low, dimension.high, log=dimension.kind == "log_uniform"
            )
        return IntDistribution(
            dimension.low, dimension.high, log=dimension.kind == "log_int", step=dimension.step
        )

    def inner(path: str, value: Any) -> Any:
        dimension = spec.space[path]
        return dimension.values.index(value) if isinstance(dimension, Listed) else value

    def outer(path: str, value: Any) -> Any:
        dimension = spec.space[path]
        return dimension.values[value] if isinstance(dimension, Listed) else value

    distributions = {path: distribution(dimension) for path, dimension in spec.space.items()}
    seed = int(np.random.SeedSequence([spec.seed, number]).generate_state(1)[0])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if direction == "max" else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True),
    )
    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    for known in (told[n] for n in sorted(told)):
        state = states.get(known.state, TrialState.RUNNING)
        if known.state == "failed" or (state != TrialState.RUNNING and known.objective is None):
            continue
        way = {known.step or 0: known.objective} if state == TrialState.PRUNED else {}
        study.add_trial(
            create_trial(
                state=state,
                value=known.objective if state == TrialState.COMPLETE else None,
                intermediate_values={s: v for s, v in way.items() if v is not None},
                params={path: inner(path, value) for path, value in known.values.items()},
                distributions=distributions,
            )
        )
    asked = study.ask(distributions)
    return {path: outer(path, asked.params[path]) for path in spec.space}
