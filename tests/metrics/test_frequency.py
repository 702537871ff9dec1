"""Head, mid and tail: who is in which third, and how accurate each is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.metrics.frequency import THIRDS, accuracy_by_third, frequency_thirds


def test_thirds_by_hand() -> None:
    thirds = frequency_thirds({0: 5, 1: 50, 2: 0, 3: 9, 4: 9, 5: 100})
    assert thirds == {5: "head", 1: "head", 3: "mid", 4: "mid", 0: "tail"}


def test_crops_count_alike_within_a_third_whatever_their_class() -> None:
    class_N = np.array([0, 0, 0, 1, 2])
    right_N = np.array([True, True, True, False, True])
    thirds = frequency_thirds({0: 90, 1: 80, 2: 7, 3: 3})
    assert thirds == {0: "head", 1: "head", 2: "mid", 3: "tail"}
    assert accuracy_by_third(right_N, class_N, thirds) == {"head": 0.75, "mid": 1.0, "tail": None}


@pytest.mark.parametrize("num_classes", [0, 1, 2])
def test_fewer_classes_than_thirds_leave_the_last_ones_empty(num_classes: int) -> None:
    thirds = frequency_thirds(dict.fromkeys(range(num_classes), 3))
    assert list(thirds.values()) == list(THIRDS[:num_classes])
    nothing = accuracy_by_third(np.zeros(0, bool), np.zeros(0, np.int64), thirds)
    assert nothing == {"head": None, "mid": None, "tail": None}


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 9), max_size=30))
def test_thirds_are_equal_in_size_and_ordered_by_frequency(num_objects: dict[int, int]) -> None:
    thirds = frequency_thirds(num_objects)
    assert set(thirds) == {c for c, n in num_objects.items() if n}
    sizes = [list(thirds.values()).count(third) for third in THIRDS]
    assert max(sizes) - min(sizes) <= 1
    for more, fewer in (("head", "mid"), ("mid", "tail")):
        low = [num_objects[c] for c, third in thirds.items() if third == more]
        high = [num_objects[c] for c, third in thirds.items() if third == fewer]
        assert min(low, default=9) >= max(high, default=0)
