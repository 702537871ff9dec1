"""What an annotation file says, whatever its format: images, categories, annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of an annotation file."""

    image_id: int
    file_name: str  # relative, "/"-separated, stays below the image folder
    height_px: int | None  # None: only the file itself tells
    width_px: int | None
    # LVIS, None elsewhere: categories verified absent; categories of which not all are annotated
    absent: tuple[int, ...] | None = None
    not_exhaustive: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CategoryRecord:
    category_id: int
    name: str
    synset: str | None = None  # WordNet, such as "cat.n.01"
    frequency: str | None = None  # LVIS: r, c or f


class NoCategory(NamedTuple):
    """``category_id`` of an annotation whose own file has no such category, though the classes of a
    run may have one of that id."""

    category_id: int


class AnnotationSource(Protocol):
    """One or several files of one format, read as streams and never held in memory; or folders that
    are named by classes.

    All methods raise DataError for what is no such file, naming the place.
    """

    @property
    def name(self) -> str:
        """What to call it in errors: its path."""
        ...

    @property
    def categories(self) -> Sequence[CategoryRecord]:
        """By rising id, ids and names checked."""
        ...

    @property
    def num_images(self) -> int | None:
        """How many it lists, where that is known without reading them."""
        ...

    def images(self) -> Iterator[ImageRecord]:
        """In the order of the file; sizes and names checked; after the last one also that ids are
        unique (8 bytes an image are kept for that)."""
        ...

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        """In the order of the file, shaped as COCO's (``id``, ``image_id``, ``category_id``,
        ``bbox``, ``segmentation``, ``area``, ``iscrowd``), unchecked, whether ids are unique
        included. A ``category_id`` may be :class:`NoCategory`.

        Args:
            passed_over: counts by reason what was left out on purpose, such as objects of a class
                that the label space has not; those are no mistakes.
        """
        ...

    @property
    def has_annotations(self) -> bool: ...

    @property
    def labels_images(self) -> bool:
        """Whether its annotations say what an image shows, and not where: without box and mask."""
        ...

    @property
    def federated(self) -> bool:
        """Whether its images list absent and not exhaustively annotated categories (LVIS)."""
        ...
