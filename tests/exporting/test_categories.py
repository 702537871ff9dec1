"""Category ids of files for other programs."""

from __future__ import annotations

from typing import Any

import pytest

from gcdis_ray.exporting.categories import category_ids


def rows(*category_ids: int | None, novel: int = 2) -> list[dict[str, Any]]:
    known = [{"known": True, "category_id": number} for number in category_ids]
    found = [*known, *[{"known": False, "category_id": None}] * novel]
    return [{"class_index": index, **row} for index, row in enumerate(found)]


@pytest.mark.parametrize(
    ("classes", "ids"),
    [
        (rows(17, 3), [17, 3, 18, 19]),
        (rows(0, 1), [1, 2, 3, 4]),  # 0 is the background to some
        (rows(5, 5), [1, 2, 3, 4]),
        (rows(None, 7), [1, 2, 3, 4]),
        (rows(), [1, 2]),
        (rows(9, novel=0), [9]),
    ],
)
def test_ids_are_kept_where_they_can_be(classes: list[dict[str, Any]], ids: list[int]):
    assert category_ids(classes) == dict(enumerate(ids))
