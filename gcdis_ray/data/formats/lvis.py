"""LVIS annotation files, v0.5 and v1: COCO's, with classes verified absent and frequency groups.

Protocol: Gupta, Dollár, Girshick, "LVIS: a dataset for large vocabulary instance segmentation",
CVPR 2019. A class is rare, common or frequent by the number of training images it is on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from gcdis_ray.data.formats.coco import CocoFile
from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError
from gcdis_ray.records.fields import whole
from gcdis_ray.records.lvis_rules import (
    FEDERATED_LISTS,
    FREQUENCIES,
    check_listed,
    frequency_of,
    listed_ids,
)
from gcdis_ray.words import shown

_NAME_OF_2014 = re.compile(r"COCO_(train|val|test)2014_\d+\.jpg")
_FOLDER_AND_NAME = re.compile(r"/([^/]+/[^/]+)$")


class LvisFile(CocoFile):
    """Images are named as below the folder that holds ``train2017`` and ``val2017``: v1 gives only
    their addresses, v0.5 their names of 2014."""

    federated = True

    def file_name(self, raw: Mapping[str, Any]) -> Any:
        name, url = raw.get("file_name"), raw.get("coco_url")
        old = isinstance(name, str) and _NAME_OF_2014.fullmatch(name)
        if (name is None or old) and isinstance(url, str):
            match = _FOLDER_AND_NAME.search(url)
            return match[1] if match else url
        return name

    def image(self, raw: Mapping[str, Any], where: str) -> ImageRecord:
        """Raises DataError also for lists that hold anything else than ids of the file's
        categories. A file without categories can list what it likes."""
        absent, not_exhaustive = (self._listed(raw, name, where) for name in FEDERATED_LISTS)
        return replace(super().image(raw, where), absent=absent, not_exhaustive=not_exhaustive)

    def _listed(self, raw: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
        ids = listed_ids(raw, name, where)
        if "categories" in self.sections:
            check_listed(name, ids, self._category_ids, where)
        return ids

    @cached_property
    def _category_ids(self) -> frozenset[int]:
        return frozenset(c.category_id for c in self.categories)

    def category(self, raw: Mapping[str, Any], where: str) -> CategoryRecord:
        """Raises DataError also for a frequency that is none, or below its images. A file may
        leave it out."""
        category, frequency = super().category(raw, where), frequency_of(raw, where)
        if frequency is None:
            return category
        if (count := _image_count(raw, where)) is not None and count > FREQUENCIES[frequency][1]:
            raise _contradiction(category.name, frequency, count, where)
        return replace(category, frequency=frequency)

    @cached_property
    def _categories(self) -> list[CategoryRecord]:
        """Raises DataError also if a class is on fewer images than its frequency says, unless most
        classes are: then ``image_count`` is that of another set than the training images."""
        categories = super()._categories
        low: list[DataError] = []
        counted = 0
        for where, raw in self.raw_categories:
            count, frequency = _image_count(raw, where), frequency_of(raw, where)
            if count is not None and frequency not in (None, "r"):
                counted += 1
                if count < FREQUENCIES[frequency][0]:
                    low.append(_contradiction(str(raw["name"]), frequency, count, where))
        if 0 < len(low) <= counted / 2:
            raise low[0]
        return categories


def _image_count(raw: Mapping[str, Any], where: str) -> int | None:
    return None if raw.get("image_count") is None else whole(raw, "image_count", where)


def _contradiction(name: str, frequency: str, count: int, where: str) -> DataError:
    low, high = FREQUENCIES[frequency]
    return DataError(
        f"frequency {frequency!r} of {shown(name)} contradicts its image_count {count} "
        f"({frequency}: {low} to {high:g} images)",
        where=where,
        fix="use the official file, or mend its categories",
    )
