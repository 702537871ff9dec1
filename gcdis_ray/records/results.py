"""Where the entries of a results file stand in it."""

from __future__ import annotations

from gcdis_ray.files.json_file import JsonLists

_WRAPPED = "annotations"


def results_section(file: JsonLists) -> str:
    """The list that holds the entries: the file itself, or ``annotations`` of an object, as tools
    write that keep images and categories beside them."""
    return _WRAPPED if _WRAPPED in file.lists else ""
