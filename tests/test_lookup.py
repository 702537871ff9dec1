"""Finding ids in sorted ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.lookup import is_in, places

IDS = st.lists(st.integers(-5, 5), max_size=12)


@given(IDS, IDS)
def test_equals_a_list_search(ids: list[int], among: list[int]):
    rising = sorted(among)
    found = places(np.array(ids, dtype=np.int32), rising)
    assert found.dtype == np.int64
    assert found.tolist() == [rising.index(i) if i in rising else -1 for i in ids]
    inside = is_in(np.array(ids, dtype=np.int64), np.array(rising, dtype=np.int64))
    assert inside.tolist() == [i in rising for i in ids]
