"""Reading of COCO results: of each detection only what it can still do.

All of them have a place among the best of their image; those of a class that is looked for in the
image have areas; those that have an object to meet have a mask.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.ap_matching import Bools, Floats, Ints
from gcdis_ray.metrics.arrow_columns import as_column, flags, numbers
from gcdis_ray.metrics.coco_batches import checked_batches, fast_batches
from gcdis_ray.metrics.coco_files import GroundTruthFile
from gcdis_ray.metrics.matches import Detections, Kind, best_of_image, joined
from gcdis_ray.metrics.overlaps import Masks
from gcdis_ray.metrics.run_lengths import run_areas


def read_results(path: Path, ground_truth: GroundTruthFile) -> Detections:
    """Detections of a COCO results file that count, in its order.

    A results file is a list of detections with a mask, a box, or both. Those of images outside of
    the truth's are left out, as are those beyond the best of their image (LVIS).

    Raises:
        DataError: naming the first detection that is wrong. Compressed run lengths are looked at
            where the detection counts.
    """
    try:
        kept = _Kept(ground_truth)
        for batch in fast_batches(path):
            kept.add(batch)
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    except pa.ArrowInvalid:
        kept = _Kept(ground_truth)
        for batch in checked_batches(path, ground_truth):
            kept.add(batch)
    return kept.detections()


class _Kept:
    """Detections so far."""

    def __init__(self, ground_truth: GroundTruthFile) -> None:
        self._truth = ground_truth.truth
        self._all_ids = np.array(sorted(ground_truth.images), dtype=np.int64)
        sizes = [ground_truth.images[i] or (-1, -1) for i in self._all_ids.tolist()]
        self._all_sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self._category_ids = np.array([c.category_id for c in ground_truth.categories], np.int64)
        self._num = 0  # detections of the truth's images
        self._image, self._score = [], []  # of all of them
        self._rows: list[Ints] = []  # which ones count
        self._counting: list[Detections] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Raises:
        pa.ArrowInvalid: something is wrong with one of these detections.
        """
        truth = self._truth
        image_id, category_id, score = (
            numbers(_whole(batch[name])) for name in ("image_id", "category_id", "score")
        )
        place, class_ = _among(image_id, self._all_ids), _among(category_id, self._category_ids)
        _must(np.isfinite(score).all())
        bbox, masked, size = _boxes(batch["bbox"]), *_sizes(batch["segmentation"])
        _must((masked | ~np.isnan(bbox[:, 0])).all())
        image_size = self._all_sizes[place]
        _must(((size == image_size) | (image_size < 0))[masked].all())

        image = np.minimum(np.searchsorted(truth.image_ids_I, image_id), len(truth.image_ids_I) - 1)
        here = np.flatnonzero(truth.image_ids_I[image] == image_id)
        self._image.append(image[here].astype(np.int32))
        self._score.append(score[here])
        key = truth.key(image, class_)
        counts = truth.looked_for(key[here])
        self._rows.append(self._num + np.flatnonzero(counts))
        self._num += len(here)
        rows = here[counts]
        text = pc.struct_field(batch["segmentation"], "counts").take(as_column(rows))  # pyright: ignore[reportAttributeAccessIssue]
        there = masked[rows]
        mask_area = np.full(len(rows), np.nan)
        mask_area[there] = run_areas(text.drop_null(), size[rows][there].prod(axis=1))
        _must(not (mask_area < 0).any())
        box_area = bbox[rows, 2] * bbox[rows, 3]
        box_area = np.where(np.isnan(box_area), mask_area, box_area)
        areas: dict[Kind, Floats] = {"mask": mask_area, "box": box_area}
        meets = as_column(truth.has_objects(key[rows]))
        values = pc.if_else(meets, text, pa.nulls(len(rows), pa.string())).cast(pa.large_string())  # pyright: ignore[reportAttributeAccessIssue]
        self._counting.append(
            Detections(
                image[rows],
                class_[rows],
                score[rows],
                bbox[rows],
                Masks(pa.chunked_array([values]), size[rows]),
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


def _must(good: object) -> None:
    if not good:
        raise pa.ArrowInvalid("a detection that needs a closer look")


def _whole(values: pa.Array) -> pa.Array:
    _must(not values.null_count)
    return values


def _among(ids: Ints, rising: Ints) -> Ints:
    """Position of each id; all of them must be there."""
    place = np.minimum(np.searchsorted(rising, ids), len(rising) - 1)
    _must(len(rising) and (rising[place] == ids).all())
    return place


def _lists(values: pa.Array, length: int) -> tuple[Bools, np.ndarray]:
    """Which rows hold a list, and their values as (N, length)."""
    there = flags(values.is_valid())
    sizes = pc.list_value_length(values).drop_null()  # pyright: ignore[reportAttributeAccessIssue]
    _must((numbers(sizes) == length).all())
    return there, numbers(_whole(values.flatten())).reshape(-1, length)


def _boxes(lists: pa.Array) -> Floats:
    """(N, 4), NaN: none."""
    there, values = _lists(lists, 4)
    _must(np.isfinite(values).all() and not (values[:, 2:] < 0).any())
    bbox = np.full((len(there), 4), np.nan)
    bbox[there] = values
    return bbox


def _sizes(masks: pa.Array) -> tuple[Bools, Ints]:
    """Which rows have a mask, and its height and width (N, 2), -1: none."""
    there = flags(masks.is_valid())
    has_size, values = _lists(pc.struct_field(masks, "size"), 2)  # pyright: ignore[reportAttributeAccessIssue]
    text = pc.struct_field(masks, "counts")  # pyright: ignore[reportAttributeAccessIssue]
    _must((has_size == there).all() and (values > 0).all())
    _must((flags(text.is_valid()) == there).all())
    size = np.full((len(there), 2), -1, dtype=np.int64)
    size[there] = values
    return there, size
