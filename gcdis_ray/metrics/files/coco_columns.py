"""Columns of a batch of COCO results, checked all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.files.arrow_columns import as_column, flags, numbers
from gcdis_ray.lookup import places
from gcdis_ray.masks.coco_rle import MAX_PIXELS
from gcdis_ray.masks.run_lengths import run_areas
from gcdis_ray.metrics.detection_matching import Bools, Floats, Ints
from gcdis_ray.metrics.files.coco_files import GroundTruthFile
from gcdis_ray.records.boxes import MAX_PX


@dataclass(frozen=True)
class Records:
    """Columns of a batch, checked but for the texts of its masks.

    ``image_I`` is the position of a detection's image in the truth, -1: of another one.
    """

    image_I: Ints
    category_id: Ints
    score: Floats
    bbox_N4: Floats  # NaN: none
    masked: Bools
    size_N2: Ints  # -1: no mask
    text: pa.Array

    def mask_areas(self, rows: Ints) -> Floats:
        """Set pixels of the masks of these rows, NaN without a mask.

        Raises:
            pa.ArrowInvalid: run lengths of one of them do not fill its mask.
        """
        there = self.masked[rows]
        areas = np.full(len(rows), np.nan)
        texts = self.text.take(as_column(rows[there]))
        areas[there] = run_areas(texts, self.size_N2[rows[there]].prod(axis=1))
        _must(not (areas < 0).any())
        return areas


class Checks:
    """What all detections have to fulfil."""

    def __init__(self, ground_truth: GroundTruthFile) -> None:
        self._ids_I = ground_truth.truth.image_ids_I
        self._all_ids = np.array(sorted(ground_truth.images), dtype=np.int64)
        sizes = [ground_truth.images[i] or (-1, -1) for i in self._all_ids.tolist()]
        self._all_sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def records(self, batch: pa.RecordBatch) -> Records:
        """Raises:
        pa.ArrowInvalid: something is wrong with one of these detections.
        """
        image_id, category_id, score = (
            numbers(_whole(batch[name])) for name in ("image_id", "category_id", "score")
        )
        place = among(image_id, self._all_ids)
        _must(np.isfinite(score).all() and (category_id >= 0).all())
        bbox, masked, size = _boxes(batch["bbox"]), *_sizes(batch["segmentation"])
        _must((masked | ~np.isnan(bbox[:, 0])).all())
        image_size = self._all_sizes[place]
        _must(((size == image_size) | (image_size < 0))[masked].all())
        image = places(image_id, self._ids_I)
        text = pc.struct_field(batch["segmentation"], "counts")  # pyright: ignore[reportAttributeAccessIssue]
        return Records(image, category_id, score, bbox, masked, size, text)


def _must(good: object) -> None:
    if not good:
        raise pa.ArrowInvalid("a detection that needs a closer look")


def _whole(column: pa.Array) -> pa.Array:
    _must(not column.null_count)
    return column


def among(ids: Ints, rising: Ints) -> Ints:
    """Position of each id.

    Raises:
        pa.ArrowInvalid: one is not there.
    """
    place = places(ids, rising)
    _must((place >= 0).all())
    return place


def _lists(column: pa.Array, length: int) -> tuple[Bools, np.ndarray]:
    """Which rows hold a list, and their values as (N, length)."""
    there = flags(column.is_valid())
    sizes = pc.list_value_length(column).drop_null()  # pyright: ignore[reportAttributeAccessIssue]
    _must((numbers(sizes) == length).all())
    return there, numbers(_whole(column.flatten())).reshape(-1, length)


def _boxes(column: pa.Array) -> Floats:
    """(N, 4), NaN: none."""
    there, values = _lists(column, 4)
    _must((np.abs(values) <= MAX_PX).all() and not (values[:, 2:] < 0).any())
    bbox = np.full((len(there), 4), np.nan)
    bbox[there] = values
    return bbox


def _sizes(column: pa.Array) -> tuple[Bools, Ints]:
    """Which rows have a mask, and its height and width (N, 2), -1: none."""
    there = flags(column.is_valid())
    has_size, values = _lists(pc.struct_field(column, "size"), 2)  # pyright: ignore[reportAttributeAccessIssue]
    text = pc.struct_field(column, "counts")  # pyright: ignore[reportAttributeAccessIssue]
    _must((has_size == there).all() and (values > 0).all())
    _must((values.prod(axis=1, dtype=np.float64) <= MAX_PIXELS).all())
    _must((flags(text.is_valid()) == there).all())
    size = np.full((len(there), 2), -1, dtype=np.int64)
    size[there] = values
    return there, size
