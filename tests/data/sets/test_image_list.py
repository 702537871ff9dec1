"""The images of a set as columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.lookup import is_in

INTS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-4, 4), max_size=30)


@given(INTS, INTS)
def test_what_is_in_a_rising_array(values: list[int], among: list[int]):
    rising = np.array(sorted(among), dtype=np.int64)
    found = is_in(np.array(values, dtype=np.int64), rising)
    assert found.tolist() == [value in among for value in values]


def test_names_in_the_order_of_the_list():
    images = ImageList(SourceImage(i, f"{i}.jpg", 1, 1, i) for i in (3, 1, 2))
    assert list(images.uris()) == [image.uri for image in images] == ["1.jpg", "2.jpg", "3.jpg"]
    assert list(images.take(images.image_id_N > 1).uris()) == ["2.jpg", "3.jpg"]
