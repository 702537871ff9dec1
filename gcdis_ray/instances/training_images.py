"""Whole images with their objects, as a detector trains on them.

Annotations are columns, once per machine, that its workers map. A worker reads the image files that
its own parts of a step need, ahead of them, and keeps them decoded if the whole set fits the memory
given, encoded otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from gcdis_ray.clustering.reliability import rank_share
from gcdis_ray.config import Closed
from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFile, ImageFiles
from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_column, flags, matrix, numbers
from gcdis_ray.files.shared_table import shared_table
from gcdis_ray.instances.net_pixels import fitted_size, resized
from gcdis_ray.masks.coco_rle import decode
from gcdis_ray.masks.instance_masks import with_made_masks
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import BOX, schema

_SHUFFLED_SHARDS = 64  # images are shuffled among this many shards at a time
_READERS = 8  # image files read at a time
_OBJECT_COLUMNS = ("instance_id", "image_id", "class_index", "bbox_xyxy", "mask_rle", "iscrowd")

_OBJECTS = schema(
    image_id=pa.int64(),
    bbox_xyxy=BOX,
    class_index=pa.int32(),
    rank=pa.float64(),
    global_rank=pa.float64(),
    crowd=pa.int8(),
    mask_rle=(pa.large_string(), "null"),
)


class ImageAugmentConfig(Closed):
    """Random changes of a training image. They follow from the seed and the step alone."""

    flip: bool = Field(True, description="mirror left to right; off for text and digits")
    scale_jitter: float = Field(0.1, ge=0, le=0.8, description="share the size varies up and down")
    color_jitter: float = Field(0.2, ge=0, le=0.9, description="share contrast and light vary")


@dataclass(frozen=True)
class Objects:
    """Objects of one image.

    ``boxes_xyxy`` (n, 4) float32 px, ``class_index`` (n,) int64, ``rles`` n strings or None for an
    object without mask, ``rank`` and ``global_rank`` (n,) float64 reliability in (0, 1] (1 for
    ground truth), ``crowds_xyxy`` (m, 4) boxes of areas to ignore.
    """

    boxes_xyxy: NDArray[np.float32]
    class_index: NDArray[np.int64]
    rles: tuple[str | None, ...]
    rank: NDArray[np.float64]
    global_rank: NDArray[np.float64]
    crowds_xyxy: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One training image: pixels (H, W, 3) uint8 RGB as the net sees them, boxes scaled alike,
    masks (n, h, w) uint8 still in the file's pixels (mirrored alike), ``mask_scale`` file px per
    net px in x and y."""

    image: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    crowds_xyxy: NDArray[np.float32]
    masks: NDArray[np.uint8]
    has_mask: NDArray[np.bool_]
    mask_scale: tuple[float, float]


class Annotations(Mapping[int, Objects]):
    """Objects of images by image_id, as columns; those of an image are made when asked for.

    Args:
        table: with columns :data:`_OBJECTS`; rows of an image lie together, in one batch.
    """

    def __init__(self, table: pa.Table) -> None:
        batches = [batch for batch in table.to_batches() if batch.num_rows]
        self._columns = [_Columns.of(batch) for batch in batches]
        runs = [_runs(numbers(batch.column("image_id"))) for batch in batches]
        none = np.zeros((0, 3), np.int64)
        found = np.concatenate([none, *(run for run in runs)])
        batch_R = np.repeat(np.arange(len(runs)), np.array([len(run) for run in runs], np.int64))
        order = np.argsort(found[:, 0], kind="stable")
        self._ids_R, self._places_R3 = found[order, 0], np.c_[batch_R, found[:, 1:]][order]

    def find(self, image_ids_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number (N,) by which :meth:`at` knows each image, -1 of one that has no objects."""
        if not len(self._ids_R):
            return np.full(len(image_ids_N), -1)
        place_N = np.minimum(np.searchsorted(self._ids_R, image_ids_N), len(self._ids_R) - 1)
        return np.where(self._ids_R[place_N] == image_ids_N, place_N, -1)

    def at(self, number: int) -> Objects:
        batch, start, stop = self._places_R3[number].tolist()
        return self._columns[batch].objects(slice(start, stop))

    def __getitem__(self, image_id: int) -> Objects:
        (number,) = self.find(np.array([image_id]))
        if number < 0:
            raise KeyError(image_id)
        return self.at(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids_R.tolist())

    def __len__(self) -> int:
        return len(self._ids_R)


@dataclass(frozen=True)
class _Columns:
    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    rank: NDArray[np.float64]
    global_rank: NDArray[np.float64]
    crowd: NDArray[np.int8]
    rles: pa.Array

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Columns:
        names = ("class_index", "rank", "global_rank", "crowd")
        columns = (numbers(batch.column(name)) for name in names)
        return cls(matrix(batch.column("bbox_xyxy")), *columns, batch.column("mask_rle"))

    def objects(self, rows: slice) -> Objects:
        crowd = self.crowd[rows] != 0
        rles = self.rles[rows].to_pylist()
        return Objects(
            self.boxes[rows][~crowd],
            self.classes[rows][~crowd].astype(np.int64),
            tuple(rle for rle, is_crowd in zip(rles, crowd, strict=True) if not is_crowd),
            self.rank[rows][~crowd],
            self.global_rank[rows][~crowd],
            self.boxes[rows][crowd],
        )


def read_instances(instances: Table, made: Table | None = None) -> Annotations:
    """Ground truth by image_id. Images with crowds only are left out.

    Args:
        made: ``instance_masks``, to be taken for the masks of objects that came without.
    """

    def pieces() -> Iterator[pa.Table]:
        for shard in range(instances.num_shards):
            rows = instances.shard(shard, _OBJECT_COLUMNS)
            rows = with_made_masks(rows, made.shard(shard) if made else None)
            image_id, crowd = numbers(rows["image_id"]), flags(rows["iscrowd"])
            rows = rows.filter(as_column(np.isin(image_id, image_id[~crowd])))
            ones = as_column(np.ones(rows.num_rows))
            yield _by_image(
                rows["image_id"],
                rows["bbox_xyxy"],
                rows["class_index"],
                ones,
                ones,
                rows["iscrowd"].cast(pa.int8()),
                rows["mask_rle"],
            )

    name = f"instances {instances.digest} {made.digest if made else ''}"
    return Annotations(shared_table(name, _OBJECTS, pieces))


def read_pseudo_labels(pseudo_labels: Table, proposals: Table) -> Annotations:
    """Pseudo-labels with their proposals' masks, by image_id.

    Raises:
        DataError: a pseudo-label of a proposal that does not exist.
    """

    def pieces() -> Iterator[pa.Table]:
        stability = numbers(pseudo_labels.read(("stability",))["stability"])
        global_rank, start = rank_share(stability.astype(np.float64)), 0
        for labels, masks in zip(
            pseudo_labels.iter_shards(("image_id", "source_id", "cluster_id", "reliability")),
            proposals.iter_shards(("proposal_id", "bbox_xyxy", "mask_rle")),
            strict=True,
        ):
            rows = _rows_of(numbers(labels["source_id"]), numbers(masks["proposal_id"]))
            masks, num = masks.take(as_column(rows)), len(rows)
            yield _by_image(
                labels["image_id"],
                masks["bbox_xyxy"],
                labels["cluster_id"],
                labels["reliability"].cast(pa.float64()),
                as_column(global_rank[start : start + num]),
                as_column(np.zeros(num, np.int8)),
                masks["mask_rle"],
            )
            start += num

    name = f"pseudo-labels {pseudo_labels.digest} {proposals.digest}"
    return Annotations(shared_table(name, _OBJECTS, pieces))


def _rows_of(sources: NDArray[np.int64], proposal_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of each label's proposal."""
    order = np.argsort(proposal_ids, kind="stable")
    place = np.searchsorted(proposal_ids, sources, sorter=order)
    found = np.isin(sources, proposal_ids)
    if not found.all():
        raise DataError(
            f"pseudo-label of proposal {sources[~found][0]}, which is not in the same shard",
            where="table 'pseudo_labels'",
            fix="run the stages from propose again",
        )
    return order[place]


def _by_image(*columns: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Columns :data:`_OBJECTS`, the rows of each image together, in their order."""
    *others, rles = columns
    table = pa.table([*others, rles.cast(pa.large_string())], schema=_OBJECTS)
    return table.take(as_column(np.argsort(numbers(table["image_id"]), kind="stable")))


def _runs(ids_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Value, start and stop (R, 3) of each run of equal values."""
    starts = np.flatnonzero(np.diff(ids_N, prepend=ids_N[:1] - 1))
    return np.c_[ids_N[starts], starts, np.append(starts[1:], len(ids_N))]


class Scenes:
    """Images that have objects, in shard order. Threads may share it.

    A worker reads the files of the images it asks for, each by itself, and those that it is told it
    will ask for ahead. Of tables that hold the files and have no index it reads whole shards.

    Args:
        images: the images table.
        objects: only images that have some are kept.
        cache_bytes: memory for image files. Too little costs reading again, changes no result.
        source: where the files are, if not in the table.
        listed: the same images without their files, to spare reading those.
    """

    def __init__(
        self,
        images: Table,
        objects: Annotations,
        cache_bytes: int,
        source: ImageFiles | None = None,
        listed: Table | None = None,
    ) -> None:
        self._images, self._budget, self._source = images, cache_bytes, source or ImageFiles()
        listed = listed or images
        known = listed.read(("image_id", "height_px", "width_px"))
        number_N = objects.find(numbers(known["image_id"]))
        kept = np.flatnonzero(number_N >= 0)
        shard_sizes = np.array([shard.rows or 0 for shard in listed.shards], np.int64)
        shard_N = np.repeat(np.arange(len(shard_sizes)), shard_sizes)
        firsts = np.cumsum([0, *shard_sizes])
        self._objects, self._numbers = objects, number_N[kept]
        self._shards, self._rows = shard_N[kept], kept - firsts[shard_N[kept]]
        heights, widths = (numbers(known[n]).astype(np.int64) for n in ("height_px", "width_px"))
        self._keep_decoded = 3 * int((heights * widths)[kept].sum()) <= cache_bytes
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._files: OrderedDict[int, ImageFile] = OrderedDict()
        self._file_bytes = 0
        self._reading: dict[int, Future[dict[int, ImageFile]]] = {}
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(_READERS, "images")
        self._table = lru_cache(2 * _SHUFFLED_SHARDS)(self._read_table)

    def __len__(self) -> int:
        return len(self._numbers)

    def objects(self, index: int) -> Objects:
        return self._objects.at(self._numbers[index])

    def order(self, seed: int, stream: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the images in which a reader needs few shards at a time."""
        rng = np.random.default_rng([seed, stream, epoch])
        shards, shard_of = np.unique(self._shards, return_inverse=True)
        window = rng.permutation(len(shards))[shard_of] // _SHUFFLED_SHARDS
        return np.lexsort((rng.random(len(window)), window))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels (H, W, 3) uint8 RGB."""
        if index in self._decoded:
            return self._decoded[index]
        pixels = self._file(index).pixels()
        if self._keep_decoded:
            self._decoded[index] = pixels
        return pixels

    def ahead(self, indices: Iterable[int]) -> None:
        """Begin to read these images, if they are not at hand: they will be asked for soon."""
        with self._lock:
            self._begin(indices)

    def sample(
        self,
        index: int,
        sides_px: tuple[int, int],
        augment: ImageAugmentConfig,
        rng: np.random.Generator,
    ) -> Sample:
        """One image for training, at random scale, light and side.

        Args:
            sides_px: shorter and longest side, see :func:`fitted_size`.
        """
        pixels, objects = self.image(index), self.objects(index)
        height, width = pixels.shape[:2]
        jitter = 1.0 + augment.scale_jitter * rng.uniform(-1, 1)
        contrast = 1.0 + augment.color_jitter * rng.uniform(-1, 1)
        light = 128.0 * augment.color_jitter * rng.uniform(-1, 1)
        mirror = bool(rng.random() < 0.5) and augment.flip
        pixels = resized(pixels, fitted_size(height, width, sides_px, jitter))
        if augment.color_jitter:
            table = np.clip((np.arange(256) - 128.0) * contrast + 128.0 + light, 0, 255)
            pixels = table.astype(np.uint8)[pixels]
        new_height, new_width = pixels.shape[:2]
        scale = np.array([new_width / width, new_height / height] * 2, np.float32)
        boxes, crowds = objects.boxes_xyxy * scale, objects.crowds_xyxy * scale
        has_mask = np.array([rle is not None for rle in objects.rles], bool)
        masks = np.zeros((len(boxes), height, width), np.uint8)
        for mask, rle in zip(masks, objects.rles, strict=True):
            if rle is not None:
                mask[:] = decode(rle, height, width)
        if mirror:
            pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
            boxes, crowds = _mirrored(boxes, new_width), _mirrored(crowds, new_width)
        return Sample(
            np.ascontiguousarray(pixels),
            boxes,
            crowds,
            np.ascontiguousarray(masks),
            has_mask,
            (width / new_width, height / new_height),
        )

    def _file(self, index: int) -> ImageFile:
        with self._lock:
            self._begin([index])
            if index in self._files:
                self._files.move_to_end(index)
                return self._files[index]
            reading = self._reading.get(index)
        if reading is None:  # another thread has decoded and kept it meanwhile
            return self._read(int(self._shards[index]), [index])[index]
        found = reading.result()
        with self._lock:
            for other, file in found.items():
                if self._reading.pop(other, None) is not None:
                    self._keep(other, file)
        return found[index]

    def _begin(self, indices: Iterable[int]) -> None:
        """Locked by the caller."""
        for index in indices:
            if index in self._decoded or index in self._files or index in self._reading:
                continue
            shard, group = int(self._shards[index]), [index]
            if self._source.folder is None and self._images.shards[shard].index is None:
                group = np.flatnonzero(self._shards == shard).tolist()
            reading = self._pool.submit(copy_context().run, self._read, shard, group)
            self._reading |= dict.fromkeys(group, reading)

    def _keep(self, index: int, file: ImageFile) -> None:
        """Locked by the caller."""
        self._files[index] = file
        self._file_bytes += len(file.data)
        while len(self._files) > 1 and self._file_bytes > self._budget:
            self._file_bytes -= len(self._files.popitem(last=False)[1].data)

    def _read(self, shard: int, indices: Sequence[int]) -> dict[int, ImageFile]:
        """Files of images of a shard."""
        rows = as_column(self._rows[list(indices)])
        if (index := self._table(shard)) is None:
            table = self._images.shard(shard, FILE_COLUMNS).take(rows)
        else:
            table = index.take(rows)
            if "bytes" not in index.column_names:
                files = self._images.values(shard, "bytes", table)
                table = table.append_column("bytes", pa.array(files, pa.binary()))
        return dict(zip(indices, self._source.read(table), strict=True))

    def _read_table(self, shard: int) -> pa.Table | None:
        """What is known of a shard's images, of which any can be read alone; else None."""
        if self._source.folder is not None:
            return self._images.shard(shard, FILE_COLUMNS)
        return self._images.index(shard)


def _mirrored(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
