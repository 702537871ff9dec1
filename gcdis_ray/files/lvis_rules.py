"""What LVIS's annotation files say beyond COCO's: lists of classes per image, and frequencies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gcdis_ray.errors import DataError

# of an image: classes verified absent, and classes not all of whose objects are annotated
FEDERATED_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")

# images of a class: fewest and most of each group
FREQUENCIES: Mapping[str, tuple[int, float]] = {
    "r": (0, 10),
    "c": (11, 100),
    "f": (101, float("inf")),
}


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
