"""Lists of ids or names inside JSON files of any size, read as streams."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from gcdis_ray.data.sets.data_config import JsonList
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.records.fields import not_whole, whole_number
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import some

_MAX_NAMES = 1_000_000


def read_ids(folder: SourceFolder, reference: JsonList, where: str) -> np.ndarray:
    """Image ids: (N,) int64, sorted, each once.

    Args:
        where: config key for errors.

    Raises:
        DataError: no such file or list, or an entry that is no id.
    """
    ids = array("q")
    for value in _entries(folder, reference, where):
        if (image_id := whole_number(value)) is None:
            odd = not_whole(value, "entry").what
            raise _no_list(folder, reference, where, f"ids: {odd}")
        ids.append(image_id)
    return np.unique(np.array(ids, np.int64))


def read_names(folder: SourceFolder, reference: JsonList, where: str) -> list[str | int]:
    """Names or ids of classes, in the order of the file.

    Raises:
        DataError: as :func:`read_ids`.
    """
    values = list(islice(_entries(folder, reference, where), _MAX_NAMES))
    if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
        raise _no_list(folder, reference, where, "names or ids")
    return values


def _entries(folder: SourceFolder, reference: JsonList, where: str) -> Iterator[Any]:
    """Entries of the list at ``a.b``, or field b of every object of list a."""
    file = JsonFile(folder, reference.file)
    if not reference.key and "" not in file.lists:
        raise DataError(f"{file.path} is no list", where=where, fix="name a list in it by its key")
    first, _, rest = reference.key.partition(".")
    if first in file.outline.lists:
        if not rest and file.outline.first[first]:  # objects: no list of names or ids
            raise _no_list(folder, reference, where, "names or ids")
        found = 0
        for value in file.items(".".join(filter(None, (first, "item", rest)))):
            found += 1
            yield value
        if found != file.outline.lists[first]:
            raise DataError(
                f"{rest!r} is in {found} of the {file.outline.lists[first]} objects of "
                f"{first!r} in {file.path}",
                where=where,
            )
        return
    value = None
    if first in file.outline.keys and rest:
        value = next(file.items(reference.key), None)  # a list below objects: a short one
    if value is None:
        raise DataError(
            f"no {reference.key!r} in {file.path}",
            where=where,
            fix=f"it has {some(sorted(file.outline.keys), 8)}",
        )
    if not isinstance(value, list):
        raise _no_list(folder, reference, where, "names or ids")
    yield from value


def _no_list(folder: SourceFolder, reference: JsonList, where: str, of: str) -> DataError:
    path = f"{folder.uri}/{reference.file}"
    return DataError(f"{reference.key!r} in {path} is no list of {of}", where=where)
