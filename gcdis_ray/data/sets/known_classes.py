"""Which classes are known: names, ids, or a list in a file, found among the labeled set's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from gcdis_ray.data.formats.records import CategoryRecord
from gcdis_ray.data.sets.data_config import DataConfig, JsonList
from gcdis_ray.data.sets.json_lists import read_names
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, shown, some


def known_classes(
    config: DataConfig, folder: SourceFolder, categories: Sequence[CategoryRecord]
) -> list[CategoryRecord]:
    """The known ones of ``categories``, by rising id.

    Raises:
        DataError: no such class, a name that stands for several, no class at all.
    """
    where = "stages.ingest.known_classes"
    wanted = config.known_classes
    if wanted == "all":
        wanted = [category.category_id for category in categories]
    elif isinstance(wanted, JsonList):
        wanted = read_names(folder, wanted, where)
    by_name: dict[str, list[CategoryRecord]] = defaultdict(list)
    for category in categories:
        by_name[category.name].append(category)
    by_id = {category.category_id: category for category in categories}
    known: dict[int, CategoryRecord] = {}
    for entry in wanted:
        matches = by_name.get(entry, []) if isinstance(entry, str) else []
        if isinstance(entry, int) and entry in by_id:
            matches = [by_id[entry]]
        if len(matches) > 1:
            ids = [category.category_id for category in matches]
            raise DataError(
                f"{shown(entry)} names categories {some(ids, 5)}", where=where, fix="give the id"
            )
        if not matches:
            raise DataError(
                f"no class {shown(entry)}", where=where, fix=_suggest(entry, categories)
            )
        known[matches[0].category_id] = matches[0]
    if not known:
        raise DataError("no known class", where=where, fix=_suggest(None, categories))
    return [known[category_id] for category_id in sorted(known)]


def without_object(absent: Sequence[str], num_known: int) -> DataError:
    """Known classes of these names are on no labeled image: nothing could be learned about them."""
    return DataError(
        f"{len(absent):,} of {counted(num_known, 'known class', 'known classes')} "
        f"{'has' if len(absent) == 1 else 'have'} no object on the labeled images: "
        f"{some(absent, 5)}",
        where="stages.ingest.known_classes",
        fix="take them out, or choose labeled images that show them",
    )


def _suggest(entry: Any, categories: Sequence[CategoryRecord]) -> str:
    if isinstance(entry, int):
        near = sorted((c.category_id for c in categories), key=lambda i: (abs(i - entry), i))[:5]
        return f"the nearest ids are {some(near, 5)}"
    names = [category.name for category in categories]
    near = get_close_matches(str(entry), names, n=3, cutoff=0.5) if entry else []
    return f"did you mean {some(near, 3)}" if near else f"valid are {some(names, 8)}"
