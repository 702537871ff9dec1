from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.config import TrainingConfig
from gcdis_ray.training.schedule import learning_rate, linear_course


def test_warm_up_peak_and_end():
    config = TrainingConfig(steps=100, lr=0.4, warmup=0.1, final_lr_ratio=0.01)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[9] == rates[10] == pytest.approx(0.4)
    assert rates[99] == pytest.approx(0.004)
    middle = 10 + 89 / 2
    below, above = learning_rate(config, int(middle)), learning_rate(config, int(middle) + 1)
    assert (below + above) / 2 == pytest.approx((0.4 + 0.004) / 2)


@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 1),
    ratio=st.floats(0, 1),
)
def test_rate_rises_then_falls_within_bounds(steps: int, warmup: float, ratio: float):
    config = TrainingConfig(steps=steps, lr=1.0, warmup=warmup, final_lr_ratio=ratio)
    rates = [learning_rate(config, step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert all(b <= a + 1e-12 for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))


def test_a_linear_course_rests_before_and_after():
    found = [linear_course(0.2, 0.1, progress) for progress in (-1, 0, 0.5, 1, 3)]
    assert found == pytest.approx([0.2, 0.2, 0.15, 0.1, 0.1])
