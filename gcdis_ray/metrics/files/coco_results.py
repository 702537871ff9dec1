"""Reading of COCO results: of each detection only what it can still do.

All of them have a place among the best of their image; those of a class that is looked for in the
image have areas; those that have an object to meet have a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.files.arrow_columns import as_column
from gcdis_ray.files.json_outline import named_errors
from gcdis_ray.lookup import places
from gcdis_ray.metrics.detection_columns import Detections, Kind, best_of_image, joined
from gcdis_ray.metrics.detection_matching import Floats, Ints
from gcdis_ray.metrics.files.coco_batches import checked_batches, fast_batches
from gcdis_ray.metrics.files.coco_columns import Checks, among
from gcdis_ray.metrics.files.coco_files import GroundTruthFile
from gcdis_ray.metrics.files.mask_faults import MaskFaults
from gcdis_ray.metrics.overlaps import Masks
from gcdis_ray.training.plan import Show


class Reader(Protocol):
    def add(self, batch: pa.RecordBatch) -> None:
        """Raises:
        pa.ArrowInvalid: something is wrong with one of these detections.
        """
        ...


R = TypeVar("R", bound=Reader)


def read_results(
    path: Path,
    ground_truth: GroundTruthFile,
    stands_for: StandsFor | None = None,
    faults: MaskFaults | None = None,
    show: Show = lambda progress: None,
) -> Detections:
    """Detections of a COCO results file that count, in its order.

    A results file is a list of detections with a mask, a box, or both. Those of images outside of
    the truth's are left out, as are those beyond the best of their image (LVIS).

    Args:
        stands_for: what the category ids are, any of them; detections whose id stands for nothing
            do not count. Not given: they are the ground truth's.
        faults: is told masks that say nothing.
        show: how much has been read.

    Raises:
        DataError: naming the first detection that is wrong. Compressed run lengths are looked at
            where the detection counts.
    """

    def start() -> _Kept:
        return _Kept(ground_truth, stands_for)

    return scan(path, ground_truth, start, stands_for is not None, faults, show).detections()


def scan(
    path: Path,
    ground_truth: GroundTruthFile,
    start: Callable[[], R],
    any_category: bool,
    faults: MaskFaults | None = None,
    show: Show = lambda progress: None,
) -> R:
    """Give all batches of a results file to a reader, and once more to a new one if need be.

    Raises:
        DataError: see :func:`read_results`.
    """
    try:
        reader = start()
        with named_errors(str(path)):
            for batch in fast_batches(path, show):
                reader.add(batch)
    except pa.ArrowInvalid:
        reader = start()
        for batch in checked_batches(path, ground_truth, any_category, faults, show):
            reader.add(batch)
    return reader


@dataclass(frozen=True)
class StandsFor:
    """What category ids of results are.

    Args:
        column_of: category id -> column of the class; other ids stand for nothing.
        use_up: detections of those have their share of the best of an image.
    """

    column_of: Mapping[int, int]
    use_up: bool

    def columns(self, category_id: Ints) -> Ints:
        """-1: nothing."""
        ids = sorted(self.column_of)
        columns = np.array([*(self.column_of[i] for i in ids), -1], dtype=np.int64)
        return columns[places(category_id, ids)]  # the last one for those that are not there


class _Kept:
    """Detections so far."""

    def __init__(self, ground_truth: GroundTruthFile, stands_for: StandsFor | None) -> None:
        self._truth, self._stands_for = ground_truth.truth, stands_for
        self._checks = Checks(ground_truth)
        self._category_ids = np.array([c.category_id for c in ground_truth.categories], np.int64)
        self._num = 0  # detections of the truth's images
        self._image, self._score = [], []  # of all of them
        self._rows: list[Ints] = []  # which ones count
        self._counting: list[Detections] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Raises:
        pa.ArrowInvalid: something is wrong with one of these detections.
        """
        truth, found = self._truth, self._checks.records(batch)
        here = found.image_I >= 0
        if self._stands_for is None:
            class_ = among(found.category_id, self._category_ids)
        else:
            class_ = self._stands_for.columns(found.category_id)
            here &= self._stands_for.use_up | (class_ >= 0)
        here = np.flatnonzero(here)
        image = found.image_I
        self._image.append(image[here].astype(np.int32))
        self._score.append(found.score[here])
        key = truth.key(image, class_)
        counts = truth.looked_for(key[here]) & (class_[here] >= 0)
        self._rows.append(self._num + np.flatnonzero(counts))
        self._num += len(here)
        rows = here[counts]
        mask_area = found.mask_areas(rows)
        text, bbox, size = (
            found.text.take(as_column(rows)),
            found.bbox_N4[rows],
            found.size_N2[rows],
        )
        box_area = bbox[:, 2] * bbox[:, 3]
        box_area = np.where(np.isnan(box_area), mask_area, box_area)
        areas: dict[Kind, Floats] = {"mask": mask_area, "box": box_area}
        meets = as_column(truth.has_objects(key[rows]))
        values = pc.if_else(meets, text, pa.nulls(len(rows), pa.string())).cast(pa.large_string())  # pyright: ignore[reportAttributeAccessIssue]
        self._counting.append(
            Detections(
                image[rows],
                class_[rows],
                found.score[rows],
                bbox,
                Masks(pa.chunked_array([values]), size),
                areas,
            )
        )

    def detections(self) -> Detections:
        found = joined(self._counting)
        limit = self._truth.rules.max_per_image
        if limit is None or not self._num:
            return found
        best = best_of_image(np.concatenate(self._image), np.concatenate(self._score), limit)
        is_best = np.zeros(self._num, dtype=np.bool_)
        is_best[best] = True
        return found.take(np.flatnonzero(is_best[np.concatenate(self._rows)]))
