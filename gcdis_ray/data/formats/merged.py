"""Several annotation files on the same images, as one source.

Images are those that all files list; names and sizes are the first file's. A class comes from the
first file that has it, so that an object which two files show is not there twice. Boxes drawn on
another size of the same picture are scaled (Visual Genome's copies of COCO's images often are
larger).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gcdis_ray.data.formats.records import AnnotationSource, CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError
from gcdis_ray.records.fields import whole_number
from gcdis_ray.words import shown

_SHAPE_TOLERANCE = 0.02  # of the ratio of sides: resizing rounds both to whole pixels


class MergedSource:
    """Annotation ids are ``n * id + file`` for n files, so that they stay unique.

    Raises:
        DataError: two files name one category id differently.
    """

    num_images = None

    def __init__(self, sources: Sequence[AnnotationSource]) -> None:
        self.sources = sources
        self.name = " + ".join(source.name for source in sources)
        self.federated = sources[0].federated  # whose records of images are given
        self.has_annotations = all(source.has_annotations for source in sources)
        self.labels_images = all(source.labels_images for source in sources)
        self.own: list[set[int]] = []  # of each file: the categories that it gives
        by_id: dict[int, CategoryRecord] = {}
        for source in sources if self.has_annotations else ():
            for category in source.categories:
                before = by_id.get(category.category_id)
                if before is not None and before.name != category.name:
                    raise DataError(
                        f"category {category.category_id} is {shown(before.name)} and "
                        f"{shown(category.name)}",
                        where=self.name,
                        fix="set label_space and relabel, or number the categories alike",
                    )
            self.own.append({c.category_id for c in source.categories} - by_id.keys())
            by_id = {c.category_id: c for c in source.categories} | by_id
        self.categories = [by_id[category_id] for category_id in sorted(by_id)]

    def images(self) -> Iterator[ImageRecord]:
        shared, _ = self._shared
        for record in self.sources[0].images():
            place = np.searchsorted(shared, record.image_id)
            if place < len(shared) and shared[place] == record.image_id:
                yield record

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        passed_over = Counter() if passed_over is None else passed_over
        shared, scale = self._shared
        for position, source in enumerate(self.sources):
            own = self.own[position]
            given = {c.category_id for c in source.categories} - own
            for raw in source.annotations(passed_over):
                image_id = whole_number(raw.get("image_id"))
                place = None if image_id is None else int(np.searchsorted(shared, image_id))
                if place is None or place == len(shared) or shared[place] != image_id:
                    passed_over["on an image that not all files list"] += 1
                elif whole_number(raw.get("category_id")) in given:
                    passed_over["of a class that an earlier file has"] += 1
                else:
                    yield self._placed(raw, position, scale[place, position])

    def _placed(self, raw: dict[str, Any], position: int, scale: np.ndarray) -> dict[str, Any]:
        own_id = whole_number(raw.get("id"))
        if own_id is not None:
            raw = {**raw, "id": own_id * len(self.sources) + position}
        if (scale == 1).all():
            return raw
        if raw.get("segmentation"):
            raise DataError(
                f"image {raw['image_id']} has another size than in the first file, and masks",
                where=self.sources[position].name,
                fix="put the file with masks first",
            )
        down, across = scale.tolist()
        try:
            x, y, width, height = raw["bbox"]
            box = [x * across, y * down, width * across, height * down]
        except (KeyError, TypeError, ValueError):  # whoever checks boxes says what is wrong
            return raw
        return {**raw, "bbox": box}

    @cached_property
    def _shared(self) -> tuple[np.ndarray, np.ndarray]:
        """(ids (N,) int64 sorted of images that all files list in one shape,
        (N, files, 2) float64: the first file's height and width over each file's)"""
        tables = [_sizes(source) for source in self.sources]
        ids = tables[0][0]
        for other, _ in tables[1:]:
            ids = np.intersect1d(ids, other, assume_unique=True)
        sizes = np.stack(
            [size[np.searchsorted(own, ids)] for own, size in tables], 1
        )  # N, files, 2
        ratio = sizes[:, :1] / sizes
        same = (np.abs(ratio[..., 0] / ratio[..., 1] - 1) <= _SHAPE_TOLERANCE).all(1)
        if not same.any():
            raise DataError(
                "no image is in all of these files", where=self.name, fix="check annotations"
            )
        return ids[same], ratio[same]


def _sizes(source: AnnotationSource) -> tuple[np.ndarray, np.ndarray]:
    """(ids (N,) int64 sorted, (N, 2) float64 height and width in pixels)"""
    rows = array("q")
    for record in source.images():
        assert record.height_px is not None  # files tell sizes, and class folders are no file
        assert record.width_px is not None
        rows.extend((record.image_id, record.height_px, record.width_px))
    table = np.array(rows, np.int64).reshape(-1, 3)
    table = table[np.argsort(table[:, 0])]
    return table[:, 0], table[:, 1:].astype(np.float64)
