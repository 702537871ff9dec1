from __future__ import annotations

import pytest

from gcdis_ray.methods.gcdis.temperature import cosine_temperature


def test_cosine_schedule_stays_in_range():
    values = [cosine_temperature(i / 100, 0.1, 1.0, 5) for i in range(101)]
    assert max(values) == pytest.approx(1.0)
    assert min(values) == pytest.approx(0.1)
    assert values[0] == pytest.approx(1.0)
    assert values[10] == pytest.approx(0.1)
