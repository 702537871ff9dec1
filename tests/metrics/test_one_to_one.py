"""Greedy pairs against a loop that takes them one by one."""

from __future__ import annotations

import numpy as np
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gcdis_ray.metrics.one_to_one import greedy_pairs


@examples(200)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 7), st.integers(0, 7)),
        elements=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9]),
    )
)
def test_the_best_free_pair_is_taken_each_time_and_the_first_of_equal_ones(iou: np.ndarray) -> None:
    left = iou.copy()
    for row, column, value in greedy_pairs(iou, 0.5):
        assert (row, column) == np.unravel_index(left.argmax(), left.shape)
        assert value == left[row, column]
        left[row, :], left[:, column] = -1, -1
    assert not (left >= 0.5).any()
