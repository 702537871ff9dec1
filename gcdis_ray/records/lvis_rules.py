"""What LVIS's annotation files say beyond COCO's: lists of classes per image, and frequencies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gcdis_ray.errors import DataError
from gcdis_ray.records.fields import not_whole, whole_number
from gcdis_ray.words import shown

# of an image: classes verified absent, and classes not all of whose objects are annotated
FEDERATED_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")

# images of a class: fewest and most of each group
FREQUENCIES: Mapping[str, tuple[int, float]] = {
    "r": (0, 10),
    "c": (11, 100),
    "f": (101, float("inf")),
}


_CATEGORY_FIELDS = ("frequency", "synset", "image_count")


def are_categories(fields: Collection[str]) -> bool:
    """Whether categories with these fields are LVIS's: other files have a ``frequency``, too."""
    return all(name in fields for name in _CATEGORY_FIELDS)


def frequency_of(raw: Mapping[str, Any], where: str) -> str | None:
    """r, c, f, or None if a category does not say.

    Raises:
        DataError: it says anything else.
    """
    frequency = raw.get("frequency")
    if frequency is not None and (not isinstance(frequency, str) or frequency not in FREQUENCIES):
        raise DataError(
            f"frequency {shown(frequency)} of {shown(raw.get('name'))} is none of r, c, f",
            where=where,
        )
    return frequency


def listed_ids(raw: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    """The ids in a list of an image; none if it has no such list.

    Raises:
        DataError: it is no list of category ids.
    """
    values = raw.get(name)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise DataError(f"{name} {shown(values)} is no list of category ids", where=where)
    ids = [whole_number(value) for value in values]
    if None in ids:
        odd = not_whole(values[ids.index(None)], "category id")
        raise DataError(f"{name} is no list of category ids: {odd.what}", where=where)
    return tuple(i for i in ids if i is not None)


def has_lists(fields: Collection[str]) -> bool:
    """Whether an image with these fields is annotated as LVIS's are."""
    return all(name in fields for name in FEDERATED_LISTS)


def check_listed(name: str, ids: Iterable[int], known: Collection[int], where: str) -> None:
    """Raise DataError if a list of an image names a category that its file does not have."""
    for category_id in ids:
        if category_id not in known:
            raise DataError(
                f"{name} holds {category_id}, which is no category of the file",
                where=where,
                fix="use the official file, or mend its lists",
            )


def check_alike(image_id: int, federated: bool, before: bool, where: str) -> None:
    """Raise DataError if an image is ``federated`` and those before it are not, or the reverse."""
    if federated != before:
        raise DataError(
            f"image {image_id} {'has' if federated else 'lacks'} {' or '.join(FEDERATED_LISTS)}, "
            "unlike those before it: neither COCO's rules nor LVIS's hold for all",
            where=where,
        )
