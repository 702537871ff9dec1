"""The annotations of a chosen set of images, checked one by one, by image.

Only annotations on the chosen images (and of the chosen classes) are looked at; whatever else the
file holds, in whatever order, changes nothing here. They pass by as a stream: memory does not grow
with the file, but for eight bytes an annotation that find ids which occur twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.data.formats.coco import parse_annotation, parse_image_label
from gcdis_ray.data.formats.records import AnnotationSource, NoCategory
from gcdis_ray.data.sets.image_list import ImageList
from gcdis_ray.data.sets.sorted_runs import SortedRuns, Spool
from gcdis_ray.errors import DataError
from gcdis_ray.lookup import is_in
from gcdis_ray.records.annotations import FIELDS, no_category, no_image
from gcdis_ray.records.fields import whole, whole_number
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.store.artifacts import canonical_json
from gcdis_ray.store.schemas import BOX, schema
from gcdis_ray.words import counted, cut, shown

_AT_ONCE = 4096
ANNOTATION_RUNS = schema(  # checked annotations on their way to their images; laid aside
    image_row=pa.int64(),  # in the list of images, -1 for none
    instance_id=pa.int64(),  # -1 where it cannot be read
    category_id=pa.int64(),
    bbox_xyxy=BOX,
    mask_rle=(pa.string(), "null"),
    area_px=pa.float64(),
    iscrowd=pa.bool_(),
    reason=(pa.string(), "null"),  # why it was turned down
)
_EXAMPLES = 3

Row = tuple[Any, ...]  # in the order of ANNOTATION_RUNS


@dataclass(frozen=True)
class Selection:
    """Which annotations of a file to look at.

    Args:
        images: the chosen ones; annotations on other images of the file are passed over.
        listed_ids: ids of all images of the file, sorted.
        category_ids: take these classes only, others of the file are passed over; None: all.
    """

    source: AnnotationSource
    images: ImageList
    listed_ids: NDArray[np.int64]
    category_ids: Collection[int] | None
    passed_over: Counter[str] = field(default_factory=Counter)  # by reason, of the last reading
    mask_faults: Counter[str] = field(default_factory=Counter)  # masks that say nothing, likewise

    def digest(self, told: Callable[[], None] = lambda: None) -> str:
        """One hash of all that is looked at, whatever its order in the file.

        The sum of the SHA-256 of all annotations, their number, and whether they are of images.

        Args:
            told: called every few thousand annotations.
        """
        total, count = 0, 0
        for _, raw in self._annotations():
            content = canonical_json({name: raw.get(name) for name in FIELDS})
            total += int.from_bytes(hashlib.sha256(content.encode()).digest(), "big")
            count += 1
            if count % _AT_ONCE == 0:
                told()
        of_images = ":images" if self.source.labels_images else ""
        return f"{count}:{total % 2**256:064x}{of_images}"

    def checked(self) -> Iterator[list[Row]]:
        """Some thousands of rows at a time, good ones and those with a reason."""
        categories = {c.category_id for c in self.source.categories}
        if self.category_ids is not None:
            categories &= set(self.category_ids)
        sizes, of_images = self.images.size_px_N2, self.source.labels_images
        self.mask_faults.clear()
        annotations = self._annotations()
        while some := list(islice(annotations, _AT_ONCE)):
            yield [
                _row(raw, row, sizes, categories, of_images, self.mask_faults) for row, raw in some
            ]

    def _annotations(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row of the image, annotation); row -1: its file knows no such image."""
        passed_over: set[int] = set()
        if self.category_ids is not None:
            passed_over = {c.category_id for c in self.source.categories} - set(self.category_ids)
        self.passed_over.clear()
        rest = self.source.annotations(self.passed_over)
        while some := list(islice(rest, _AT_ONCE)):
            numbers = [whole_number(raw.get("image_id")) for raw in some]
            ids = np.array([-1 if n is None else n for n in numbers], dtype=np.int64)
            listed = is_in(ids, self.listed_ids)
            for raw, row, known in zip(
                some, self.images.rows_of(ids).tolist(), listed.tolist(), strict=True
            ):
                if not known:
                    yield -1, raw
                elif row >= 0 and whole_number(raw.get("category_id")) not in passed_over:
                    yield row, raw


def _row(
    raw: dict[str, Any],
    row: int,
    sizes: NDArray[np.int32],
    categories: Collection[int],
    of_images: bool,
    mask_faults: Counter[str],
) -> Row:
    """Args:
    of_images: an annotation without a place is a label of its image.
    mask_faults: counts objects that keep their box and lose their mask.
    """
    try:
        if row < 0:
            raise no_image(whole(raw, "image_id"))
        height_px, width_px = sizes[row].tolist()
        if height_px < 0 and not of_images:
            raise Refused("its image has no size", reason=Reason.NO_SIZE)
        if isinstance(of_none := raw.get("category_id"), NoCategory):
            raise no_category(of_none.category_id)
        if of_images and not raw.get("bbox") and not raw.get("segmentation"):
            found = parse_image_label(raw, max(height_px, 0), max(width_px, 0), categories)
        else:
            found = parse_annotation(raw, height_px, width_px, categories)
            if found.mask_fault is not None:
                mask_faults[found.mask_fault.what] += 1
    except Refused as error:
        reason = f"annotation {shown(raw.get('id'))}: {error.what}"
        return row, whole_number(raw.get("id")) or -1, -1, (0.0,) * 4, None, 0.0, False, reason
    return (
        row,
        found.instance_id,
        found.category_id,
        found.bbox_xyxy,
        found.mask_rle,
        found.area_px,
        found.iscrowd,
        None,
    )


class CheckedAnnotations:
    """What :class:`Selection` finds, sorted by image. Of annotations that share an id one is kept.

    Nothing in it depends on the order of the file.
    """

    def __init__(
        self, selection: Selection, spool: Spool, told: Callable[[], None] = lambda: None
    ) -> None:
        """Reads the annotations through once.

        Args:
            spool: lays rows aside.
            told: called every few thousand annotations.
        """
        self._images = selection.images
        self._runs = SortedRuns(
            spool, "annotation_runs", ANNOTATION_RUNS, ("instance_id", "reason")
        )
        self.num_accepted = self.num_rejected = 0
        self._examples: list[str] = []
        ids: list[NDArray[np.int64]] = []
        for rows in selection.checked():
            table = pa.table(
                [[row[n] for row in rows] for n in range(len(ANNOTATION_RUNS))],
                schema=ANNOTATION_RUNS,
            )
            self._runs.add(table)
            good = table.filter(table["reason"].is_null())
            ids.append(good["instance_id"].to_numpy())
            self.num_accepted += good.num_rows
            self.num_rejected += table.num_rows - good.num_rows
            told()
        self._runs.flush()
        self.passed_over = dict(selection.passed_over)
        self.mask_faults = dict(selection.mask_faults)
        self._keep_one(np.concatenate(ids) if ids else np.zeros(0, np.int64))

    def _keep_one(self, ids: NDArray[np.int64]) -> None:
        """Choose which annotation keeps an id that occurs twice: the least by image and content."""
        ids.sort()
        twice = pa.array(np.unique(ids[1:][ids[1:] == ids[:-1]]), pa.int64())
        self._twice = twice
        self._kept: set[Row] = set()
        if not len(twice):
            return
        best: dict[int, Row] = {}
        for run in self._runs.runs:
            for piece in run.iter_shards():
                shared = pc.and_(pc.is_in(piece["instance_id"], twice), piece["reason"].is_null())  # pyright: ignore[reportAttributeAccessIssue]
                for row in _rows(piece.filter(shared)):
                    best[row[1]] = min(best.get(row[1], row), row, key=repr)
        self._kept = set(best.values())
        lost = len(ids) - len(np.unique(ids))
        self.num_accepted, self.num_rejected = self.num_accepted - lost, self.num_rejected + lost

    def parts(self, bounds: Sequence[int]) -> Iterator[tuple[pa.Table, list[tuple[int, str]]]]:
        """Annotations of consecutive ranges of images.

        Args:
            bounds: where each range of image rows ends, rising.

        Returns:
            per range: accepted rows of ``annotation_runs``, by image and id; (image row or -1,
            reason) of the others. Those of no image come with the first range.
        """
        for table in self._runs.parts(bounds):
            if table is None:
                yield ANNOTATION_RUNS.empty_table(), []
                continue
            good, bad = table["reason"].is_null(), []
            if len(self._twice):
                table, bad = self._without_twice(table)
                good = table["reason"].is_null()
            turned_down = table.filter(pc.invert(good))  # pyright: ignore[reportAttributeAccessIssue]
            bad += zip(
                turned_down["image_row"].to_pylist(), turned_down["reason"].to_pylist(), strict=True
            )
            yield table.filter(good), sorted(bad)

    def _without_twice(self, table: pa.Table) -> tuple[pa.Table, list[tuple[int, str]]]:
        shared = pc.and_(pc.is_in(table["instance_id"], self._twice), table["reason"].is_null())  # pyright: ignore[reportAttributeAccessIssue]
        stays, bad = np.ones(table.num_rows, dtype=np.bool_), []
        used: set[Row] = set()
        for place, row in zip(
            np.flatnonzero(shared.to_numpy(zero_copy_only=False)),
            _rows(table.filter(shared)),
            strict=True,
        ):
            if row not in self._kept or row in used:
                stays[place] = False
                bad.append((row[0], id_occurs_twice(row[1])))
            used.add(row)
        return table.filter(pa.array(stays)), bad

    def check_share(self, max_share: float, where: str) -> None:
        """Raise DataError if more than ``max_share`` of the annotations were rejected."""
        total = self.num_accepted + self.num_rejected
        if self.num_rejected > max_share * total:
            examples = islice(self._shown(), _EXAMPLES)
            raise too_many_rejected(self.num_rejected, total, examples, max_share, where)

    def _shown(self) -> Iterator[str]:
        for _, rejected in self.parts(range(0, len(self._images) + 1_000, 1_000)):
            for row, reason in rejected:
                yield reason if row < 0 else f"{cut(self._images[row].uri)}: {reason}"


def id_occurs_twice(instance_id: int) -> str:
    return f"annotation {instance_id}: its id occurs twice"


def too_many_rejected(
    num_rejected: int, total: int, examples: Iterable[str], max_share: float, where: str
) -> DataError:
    return DataError(
        f"{num_rejected:,} of {counted(total, 'annotation')} cannot be used, "
        f"such as {'; '.join(examples)}",
        where=where,
        fix=f"mend them, or raise stages.ingest.max_quarantined_share (now {max_share:g})",
    )


def _rows(table: pa.Table) -> Iterator[Row]:
    columns = (column.to_pylist() for column in table.columns)
    for row in zip(*columns, strict=True):
        yield tuple(tuple(v) if isinstance(v, list) else v for v in row)
