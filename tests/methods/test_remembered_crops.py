"""How many crops sizes of clusters are looked at over."""

from __future__ import annotations

import pytest

from gcdis_ray.methods.remembered_crops import remembered_crops


@pytest.mark.parametrize(
    ("wanted", "outputs", "crops", "expected"),
    [(None, 10, 5000, 200), (None, 100, 500, 500), (0, 10, 5000, 0), (7, 10, 5, 7)],
)
def test_twenty_for_each_output_but_no_more_than_there_are(wanted, outputs, crops, expected):
    assert remembered_crops(wanted, outputs, crops) == expected
