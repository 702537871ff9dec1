"""Classes of a run as other programs are to see them: named, numbered, and checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.curating.naming import class_names
from gcdis_ray.errors import DataError
from gcdis_ray.exporting.categories import category_ids
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.words import shown, some

_PREDICTED = "summary.json"  # of gcdis predict
_FIX = "give it another name (gcdis name), or mend the data set's"


@dataclass(frozen=True)
class ExportedClass:
    """A class of the run.

    Args:
        class_index: contiguous, from 0 on.
        category_id: in COCO files, from 1 on.
        known: there were labels of it.
    """

    class_index: int
    category_id: int
    name: str
    known: bool

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(self.__dict__)


def classes_of(run: OpenedRun, table: Sequence[Mapping[str, Any]]) -> list[ExportedClass]:
    """Args: table: a class table of the run: documents ``discovered_classes`` or
    ``segmenter_classes``.

    Raises:
        DataError: a name that other programs cannot hold: empty, or with control characters.
    """
    ids, given = category_ids(table), _given_names(run)
    classes = []
    for row in sorted(table, key=lambda row: row["class_index"]):
        index = int(row["class_index"])
        name = given.get(index, row["name"])
        if not name.strip() or not name.isprintable():
            raise DataError(
                f"class {index} has the name {shown(name)}: other programs cannot hold it",
                where=run.source,
                fix=_FIX,
            )
        classes.append(ExportedClass(index, ids[index], name, bool(row["known"])))
    return classes


def check_distinct(classes: Sequence[ExportedClass], where: str) -> None:
    """For programs that know a class by its name alone.

    Raises:
        DataError: two classes have one name.
    """
    counts = Counter(each.name for each in classes)
    if twice := [name for name, number in counts.items() if number > 1]:
        raise DataError(f"several classes are called {some(twice, 3)}", where=where, fix=_FIX)


def _given_names(run: OpenedRun) -> Mapping[int, str]:
    """Names that people have given, by ``class_index``: to the classes of a run, or, before
    ``gcdis predict`` applied it, to those of its model."""
    if run.has("discovered_classes"):
        return class_names(run)
    try:
        told = json.loads(run.storage.read(_PREDICTED))
    except FileNotFoundError:
        return {}
    return {row["class_index"]: row["name"] for row in told.get("classes", ())}
