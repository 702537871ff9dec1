"""Successive halving: who goes on."""

from __future__ import annotations

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.sweeps.config import SchedulerConfig
from gcdis_ray.sweeps.halving import Halving


def asha(min_steps: int, reduction: float) -> SchedulerConfig:
    return SchedulerConfig(kind="asha", min_steps=min_steps, reduction=reduction)


def test_by_hand():
    halving = Halving(asha(10, 2), "max")
    assert not halving.report(0, 5, 0.0)  # before the first rung
    assert not halving.report(0, 10, 0.5)  # nobody to compare with
    assert halving.report(1, 12, 0.4)  # below the median of {0.5}
    assert not halving.report(2, 10, 0.6)
    assert not halving.report(2, 19, 0.0)  # still the rung of 10 steps, which it has passed
    assert not halving.report(2, 20, 0.1)  # the first on the rung of 20
    assert halving.report(0, 25, 0.05)


def test_smaller_can_be_better():
    halving = Halving(asha(1, 3), "min")
    assert [halving.report(n, 1, v) for n, v in enumerate([3.0, 4.0, 2.0])] == [False, True, False]


def test_none_stops_nobody():
    halving = Halving(SchedulerConfig(), "max")
    assert not any(halving.report(n, 1000, -float(n)) for n in range(10))


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 40), st.floats(-1, 1, width=32)), max_size=60
    ),
    st.sampled_from([2, 3, 4]),
    st.integers(1, 5),
)
@examples(100)
def test_decides_as_ray_does(reports: list[tuple[int, int, float]], reduction: int, start: int):
    """Ray's scheduler is asked where the two should agree: a trial tells one value per rung, and
    none after it was stopped."""
    pytest.importorskip("ray.tune")
    from ray.tune.schedulers.async_hyperband import _Bracket

    class Trial:
        def __init__(self, number: int) -> None:
            self.trial_id = str(number)

    bracket = _Bracket(start, start * reduction**6, reduction, 0)
    halving = Halving(asha(start, reduction), "max")
    seen, over = set[tuple[int, int]](), set[int]()
    for trial, rung, value in reports:
        rung %= 4
        if trial in over or any((trial, r) in seen for r in range(rung, 4)):
            continue
        for lower in range(rung):  # Ray lets a trial that skipped rungs stop on them later
            if (trial, lower) not in seen:
                break
        else:
            seen.add((trial, rung))
            step = start * reduction**rung
            stop = halving.report(trial, step, value)
            assert stop == (bracket.on_result(Trial(trial), step, value) == "STOP")
            over |= {trial} if stop else set()
