"""Classes as other programs see them, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gcdis_ray.errors import DataError
from gcdis_ray.exporting.categories import category_ids
from gcdis_ray.exporting.classes import check_distinct, classes_of


def table(*rows: tuple[str, int | None]) -> list[dict[str, Any]]:
    """Names and category ids; a class without one is novel."""
    return [
        dict(class_index=place, name=name, known=number is not None, category_id=number)
        for place, (name, number) in enumerate(rows)
    ]


def read(*rows: tuple[str, int | None]):
    class NoNames:
        def read(self, path: str) -> bytes:
            raise FileNotFoundError(path)

    run = SimpleNamespace(source="runs/x", has=lambda member: False, storage=NoNames())
    return classes_of(cast("Any", run), table(*rows))


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ([("cat", 1), ("dog", 7), ("novel 1", None)], [1, 7, 8]),
        ([("cat", 0), ("dog", 7), ("novel 1", None)], [1, 2, 3]),
        ([("cat", 7), ("dog", 7)], [1, 2]),
        ([("novel 1", None), ("novel 2", None)], [1, 2]),
    ],
)
def test_category_ids_begin_at_one(given: list[tuple[str, int | None]], ids: list[int]):
    assert list(category_ids(table(*given)).values()) == ids
    assert [each.category_id for each in read(*given)] == ids


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00"])
def test_a_name_that_no_program_can_hold_is_refused(name: str):
    with pytest.raises(DataError, match="other programs cannot hold it") as refused:
        read(("cat", 1), (name, None))
    assert refused.value.where == "runs/x"


def test_two_classes_of_one_name_are_refused_where_a_name_is_all():
    with pytest.raises(DataError, match="several classes are called 'cat'"):
        check_distinct(read(("cat", 1), ("dog", 2), ("cat", None)), "runs/x")
