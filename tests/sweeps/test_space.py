"""What trials are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.errors import ConfigError
from gcdis_ray.stages.objective import Direction
from gcdis_ray.sweeps.config import SweepConfig
from gcdis_ray.sweeps.space import Told, num_trials, propose


def sweep(searcher: str, space: Mapping[str, Any], **fields: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {"name": "s", "base": "b", "objective": "training_loss", "searcher": searcher,
         "space": space, **fields}
    )  # fmt: skip


EVERYTHING = {
    "a.b.real": {"kind": "uniform", "low": -1.5, "high": 2.5},
    "a.b.log": {"kind": "log_uniform", "low": 1e-4, "high": 1e-1},
    "a.b.int": {"kind": "int", "low": 3, "high": 11, "step": 4},
    "a.b.log_int": {"kind": "log_int", "low": 1, "high": 1000},
    "a.b.choice": {"kind": "choice", "values": ["x", None, [1, 2], 3.0]},
}


def is_inside(values: Mapping[str, Any]) -> bool:
    return (
        list(values) == list(EVERYTHING)
        and -1.5 <= values["a.b.real"] <= 2.5
        and 1e-4 <= values["a.b.log"] <= 1e-1
        and values["a.b.int"] in (3, 7, 11)
        and 1 <= values["a.b.log_int"] <= 1000
        and type(values["a.b.log_int"]) is int
        and values["a.b.choice"] in ("x", None, [1, 2], 3.0)
    )


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000))
@examples(50)
def test_random_values_are_inside_and_depend_on_seed_and_number_alone(seed: int, number: int):
    spec = sweep("random", EVERYTHING, seed=seed)
    values = propose(spec, number, {})
    assert is_inside(values)
    assert values == propose(spec, number, {1: Told(values, "done", 1.0)})
    assert values != propose(spec, number + 1, {})


def test_random_reaches_both_ends():
    space = {"x": {"kind": "log_int", "low": 1, "high": 4}}
    seen = {propose(sweep("random", space), n, {})["x"] for n in range(200)}
    assert seen == {1, 2, 3, 4}


def test_a_grid_has_an_upper_limit():
    most = {"x": {"kind": "int", "low": 1, "high": 1_000_000}}
    assert num_trials(sweep("grid", most)) == 1_000_000
    for high in (1_000_001, 10**30):
        with pytest.raises(ConfigError, match="at most 1,000,000"):
            num_trials(sweep("grid", {"x": {"kind": "int", "low": 1, "high": high}}))


def test_grid_is_every_combination_once():
    space = {
        "x": {"kind": "grid", "values": ["p", "q"]},
        "y": {"kind": "int", "low": 0, "high": 6, "step": 3},
    }
    spec = sweep("grid", space)
    assert num_trials(spec) == 6
    found = [tuple(propose(spec, n, {}).values()) for n in range(6)]
    assert sorted(found) == [(x, y) for x in "pq" for y in (0, 3, 6)]


def test_optuna_answers_alike_when_it_knows_the_same():
    spec, told = sweep("optuna", EVERYTHING), dict[int, Told]()
    for number in range(12):
        values = propose(spec, number, told)
        assert is_inside(values)
        assert values == propose(spec, number, dict(reversed(told.items())))
        state = ("done", "stopped", "failed", "running")[number % 4]
        objective = values["a.b.real"] ** 2 if state in ("done", "stopped") else None
        told[number] = Told(values, state, objective, 10)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_optuna_goes_where_it_is_better(direction: Direction):
    space = {"x": {"kind": "uniform", "low": 0.0, "high": 1.0}}
    spec, told = sweep("optuna", space), dict[int, Told]()
    for number in range(30):
        values = propose(spec, number, told, direction)
        told[number] = Told(values, "done", values["x"])
    late = sum(told[n].values["x"] for n in range(20, 30)) / 10
    assert late < 0.25 if direction == "min" else late > 0.75
