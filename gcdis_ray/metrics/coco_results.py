"""Reading of COCO results into columns, with no more than a batch of records in memory.

What a detection can still do decides what is kept of it: all of them have a place among the best of
their image; those of a class that is looked for in the image have areas; those that have an object
to meet have a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.ap_matching import Floats, Ints
from gcdis_ray.metrics.coco_files import GroundTruthFile
from gcdis_ray.metrics.coco_records import has_list, number, records, shape
from gcdis_ray.metrics.matches import Detections, Kind, Truth, best_of_image, joined
from gcdis_ray.metrics.overlaps import Masks, as_rle, rle_areas
from gcdis_ray.metrics.run_lengths import filling

_BATCH = 8192
_FIX = "results need image_id, category_id, score, and segmentation or bbox"


def read_results(path: Path, ground_truth: GroundTruthFile) -> Detections:
    """Detections of a COCO results file that count, in its order.

    A results file is a list of detections with a mask, a box, or both. Those of images outside of
    the truth's are left out, as are those beyond the best of their image (LVIS).

    Raises:
        DataError: naming the first detection that is wrong. The run lengths of masks are checked
            where the mask counts.
    """
    reader = _Reader(ground_truth)
    found = _records(path)
    first = 0
    while batch := list(islice(found, _BATCH)):
        reader.add(batch, first, path)
        first += len(batch)
    return reader.detections()


def _records(path: Path) -> Iterator[Any]:
    try:
        with Path(path).open("rb") as file:
            start = file.read(4096).lstrip()[:1]
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=str(path)) from error
    top = "annotations" if start == b"{" else ""
    empty = True
    for record in records(path, top=top):
        empty = False
        yield record
    if empty and not has_list(path, top):
        raise DataError("not a COCO results file: a list of detections is needed", where=str(path))


@dataclass(frozen=True)
class _Columns:
    """A batch of records. Every one has a mask or a box or both."""

    image_id: Ints
    category_id: Ints
    score: Floats
    bbox: Floats  # (N, 4), NaN: none
    rles: list[dict[str, Any] | None]
    size: Ints  # (N, 2), -1: no mask


class _Reader:
    def __init__(self, ground_truth: GroundTruthFile) -> None:
        self._truth: Truth = ground_truth.truth
        self._images: Mapping[int, tuple[int, int] | None] = ground_truth.images
        self._categories = {c.category_id: n for n, c in enumerate(ground_truth.categories)}
        self._all_ids = np.array(sorted(self._images), dtype=np.int64)
        sizes = [self._images[i] or (-1, -1) for i in self._all_ids.tolist()]
        self._all_sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self._category_ids = np.array(list(self._categories), dtype=np.int64)
        self._num = 0  # detections of the truth's images
        self._image, self._score = [], []  # of all of them
        self._kept: list[Detections] = []  # those that count, and which ones they are
        self._rows: list[Ints] = []

    def add(self, rows: list[Any], first: int, path: Path) -> None:
        found = _fast_columns(rows)
        if found is None or not self._good(found):
            found = _columns([self._checked(row, f"{path}: [{first + n}]")
                              for n, row in enumerate(rows)])  # fmt: skip
        image = np.minimum(
            np.searchsorted(self._truth.image_ids_I, found.image_id),
            len(self._truth.image_ids_I) - 1,
        )
        here = np.flatnonzero(self._truth.image_ids_I[image] == found.image_id)
        class_ = np.searchsorted(self._category_ids, found.category_id)
        self._image.append(image[here].astype(np.int32))
        self._score.append(found.score[here])
        key = self._truth.key(image, class_)
        of_row = self._num + np.arange(len(here))
        counts = self._truth.looked_for(key[here])
        self._num += len(here)
        of_row, here = of_row[counts], here[counts]
        rles = [found.rles[n] for n in here.tolist()]
        if not _fill(rles, found.size[here]):
            for n, row in enumerate(rows):
                self._checked(row, f"{path}: [{first + n}]")
        bbox = found.bbox[here]
        mask_area = rle_areas(rles)
        box_area = np.where(np.isnan(bbox[:, 0]), mask_area, bbox[:, 2] * bbox[:, 3])
        meets = self._truth.has_objects(key[here]).tolist()
        texts = [r["counts"] if r and m else None for r, m in zip(rles, meets, strict=True)]
        masks = Masks(pa.chunked_array([pa.array(texts, pa.large_string())]), found.size[here])
        areas: dict[Kind, Floats] = {"mask": mask_area, "box": box_area}
        self._rows.append(of_row)
        self._kept.append(
            Detections(image[here], class_[here], found.score[here], bbox, masks, areas)
        )

    def detections(self) -> Detections:
        found = joined(self._kept)
        limit = self._truth.rules.max_per_image
        if limit is None or not self._num:
            return found
        best = best_of_image(np.concatenate(self._image), np.concatenate(self._score), limit)
        is_best = np.zeros(self._num, dtype=np.bool_)
        is_best[best] = True
        return found.take(np.flatnonzero(is_best[np.concatenate(self._rows)]))

    def _good(self, found: _Columns) -> bool:
        """Whether nothing is wrong with these detections but, perhaps, run lengths."""
        image = np.searchsorted(self._all_ids, found.image_id)
        if not len(self._all_ids) or image.max(initial=0) >= len(self._all_ids):
            return False
        size, box = self._all_sizes[image], found.bbox
        masked = found.size[:, 0] >= 0
        return bool(
            (self._all_ids[image] == found.image_id).all()
            and np.isin(found.category_id, self._category_ids).all()
            and np.isfinite(found.score).all()
            and (masked | ~np.isnan(box[:, 0])).all()
            and ((found.size == size) | (size < 0))[masked].all()
            and (np.isfinite(box).all(axis=1) | np.isnan(box).all(axis=1)).all()
            and not (box[:, 2:] < 0).any()
        )

    def _checked(self, row: Any, where: str) -> dict[str, Any]:
        """The record with its mask as compressed run lengths."""
        bbox, mask, size = shape(row, self._images, self._categories, where)
        if "score" not in row:
            raise DataError("no 'score'", where=where, fix=_FIX)
        score = number(row["score"], "score", where)
        rle = None
        if mask is not None:
            rle = as_rle(mask, list(size))
            counts = rle["counts"]
            rle["counts"] = counts.decode() if isinstance(counts, bytes) else counts
        return {"image_id": row["image_id"], "category_id": row["category_id"], "score": score,
                "bbox": bbox, "segmentation": rle}  # fmt: skip


def _fast_columns(rows: list[Any]) -> _Columns | None:
    """Columns, unless there is something in these records that needs a closer look."""
    try:
        return _columns(rows)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return None


def _columns(rows: list[dict[str, Any]]) -> _Columns:
    boxes: list[Any] = [row.get("bbox") or None for row in rows]
    rles: list[Any] = [row.get("segmentation") or None for row in rows]
    bbox = np.full((len(rows), 4), np.nan)
    boxed = [n for n, box in enumerate(boxes) if box is not None]
    bbox[boxed] = _typed(chain.from_iterable(boxes[n] for n in boxed), {int, float}).reshape(-1, 4)
    size = np.full((len(rows), 2), -1, dtype=np.int64)
    masked = [n for n, rle in enumerate(rles) if rle is not None]
    sizes = _typed(chain.from_iterable(rles[n]["size"] for n in masked), {int}).reshape(-1, 2)
    size[masked] = sizes
    if (sizes < 1).any() or {type(rles[n]["counts"]) for n in masked} - {str}:
        raise ValueError("not compressed run lengths")
    return _Columns(
        _typed((row["image_id"] for row in rows), {int}).astype(np.int64),
        _typed((row["category_id"] for row in rows), {int}).astype(np.int64),
        _typed((row["score"] for row in rows), {int, float}).astype(np.float64),
        bbox,
        rles,
        size,
    )


def _typed(values: Any, types: set[type]) -> np.ndarray:
    found = list(values)
    if set(map(type, found)) - types:
        raise TypeError("not all of these types")
    return np.array(found, dtype=np.int64 if types == {int} else np.float64)


def _fill(rles: list[dict[str, Any] | None], size: Ints) -> bool:
    texts = [rle["counts"] for rle in rles if rle is not None]
    return bool(filling(texts, size[size[:, 0] >= 0].prod(axis=1)).all())
