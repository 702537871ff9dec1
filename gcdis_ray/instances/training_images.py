"""Whole images with their objects, as a detector trains on them.

Annotations are small and read once; image files are read shard by shard when first needed, and
kept decoded if the whole set fits the memory given, encoded otherwise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from gcdis_ray.config import Closed
from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFile, ImageFiles
from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.instances.net_pixels import fitted_size, resized
from gcdis_ray.masks.coco_rle import decode
from gcdis_ray.masks.instance_masks import with_made_masks
from gcdis_ray.store.artifacts import Table

_SHUFFLED_SHARDS = 64  # images are shuffled among this many shards at a time
_OBJECT_COLUMNS = ("instance_id", "image_id", "class_index", "bbox_xyxy", "mask_rle", "iscrowd")


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


def read_instances(instances: Table, made: Table | None = None) -> dict[int, Objects]:
    """Ground truth by image_id. Images with crowds only are left out.

    Args:
        made: ``instance_masks``, to be taken for the masks of objects that came without.
    """
    found = {}
    table = pa.concat_tables(
        with_made_masks(instances.shard(i, _OBJECT_COLUMNS), made.shard(i) if made else None)
        for i in range(instances.num_shards)
    )
    crowd = table["iscrowd"].to_numpy()
    boxes = matrix(table["bbox_xyxy"])
    classes = table["class_index"].to_numpy().astype(np.int64)
    rles = table["mask_rle"].to_pylist()
    for image_id, rows in _rows_by_image(table["image_id"].to_numpy()):
        objects = rows[~crowd[rows]]
        if len(objects):
            found[image_id] = Objects(
                boxes[objects],
                classes[objects],
                tuple(rles[i] for i in objects),
                np.ones(len(objects)),
                np.ones(len(objects)),
                boxes[rows[crowd[rows]]],
            )
    return found


def read_pseudo_labels(
    pseudo_labels: Table, proposals: Table, global_rank: NDArray[np.float64]
) -> dict[int, Objects]:
    """Pseudo-labels with their proposals' masks, by image_id.

    Args:
        global_rank: (num_rows of pseudo_labels,) reliability ranked over all classes.

    Raises:
        DataError: a pseudo-label of a proposal that does not exist.
    """
    found: dict[int, Objects] = {}
    start = 0
    nobody = np.zeros((0, 4), np.float32)
    for labels, masks in zip(
        pseudo_labels.iter_shards(("image_id", "source_id", "cluster_id", "reliability")),
        proposals.iter_shards(("proposal_id", "bbox_xyxy", "mask_rle")),
        strict=True,
    ):
        row_of = {p: i for i, p in enumerate(masks["proposal_id"].to_pylist())}
        boxes, rles = matrix(masks["bbox_xyxy"]), masks["mask_rle"].to_pylist()
        try:
            source = [row_of[s] for s in labels["source_id"].to_pylist()]
        except KeyError as error:
            raise DataError(
                f"pseudo-label of proposal {error.args[0]}, which is not in the same shard",
                where="table 'pseudo_labels'",
                fix="run the stages from propose again",
            ) from None
        classes = labels["cluster_id"].to_numpy().astype(np.int64)
        rank = labels["reliability"].to_numpy().astype(np.float64)
        overall = global_rank[start : start + labels.num_rows]
        start += labels.num_rows
        for image_id, rows in _rows_by_image(labels["image_id"].to_numpy()):
            picked = [source[i] for i in rows]
            found[image_id] = Objects(
                boxes[picked],
                classes[rows],
                tuple(rles[i] for i in picked),
                rank[rows],
                overall[rows],
                nobody,
            )
    return found


class Scenes:
    """Images that have objects, in shard order. Threads may share it.

    Args:
        images: the images table.
        objects: by image_id; only these images are kept.
        cache_bytes: memory for image files. Too little costs reading again, changes no result.
        source: where the files are, if not in the table.
        listed: the same images without their files, to spare reading those twice.
    """

    def __init__(
        self,
        images: Table,
        objects: Mapping[int, Objects],
        cache_bytes: int,
        source: ImageFiles | None = None,
        listed: Table | None = None,
    ) -> None:
        self._images, self._budget, self._source = images, cache_bytes, source or ImageFiles()
        self._objects: list[Objects] = []
        self._places: list[tuple[int, int]] = []  # shard, row
        self._sizes: list[tuple[int, int]] = []
        for shard in range(images.num_shards):
            table = (listed or images).shard(shard, ("image_id", "height_px", "width_px"))
            columns = (table[name].to_pylist() for name in table.column_names)
            for row, (image_id, height, width) in enumerate(zip(*columns, strict=True)):
                if image_id in objects:
                    self._objects.append(objects[image_id])
                    self._places.append((shard, row))
                    self._sizes.append((height, width))
        self._keep_decoded = 3 * sum(h * w for h, w in self._sizes) <= cache_bytes
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._files: OrderedDict[int, list[ImageFile]] = OrderedDict()
        self._reading = threading.Lock()  # of _files

    def __len__(self) -> int:
        return len(self._objects)

    def objects(self, index: int) -> Objects:
        return self._objects[index]

    def order(self, seed: int, stream: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the images in which a reader needs few shards at a time."""
        rng = np.random.default_rng([seed, stream, epoch])
        shards, shard_of = np.unique([s for s, _ in self._places], return_inverse=True)
        window = rng.permutation(len(shards))[shard_of] // _SHUFFLED_SHARDS
        return np.lexsort((rng.random(len(window)), window))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels (H, W, 3) uint8 RGB."""
        if index in self._decoded:
            return self._decoded[index]
        shard, row = self._places[index]
        pixels = self._shard_files(shard)[row].pixels()
        if self._keep_decoded:
            self._decoded[index] = pixels
        return pixels

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
        pixels, objects = self.image(index), self._objects[index]
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

    def _shard_files(self, shard: int) -> list[ImageFile]:
        with self._reading:
            if shard in self._files:
                self._files.move_to_end(shard)
                return self._files[shard]
            files = self._source.read(self._images.shard(shard, FILE_COLUMNS))
            self._files[shard] = files
            while len(self._files) > 1 and self._encoded_bytes() > self._budget:
                self._files.popitem(last=False)
            return files

    def _encoded_bytes(self) -> int:
        return sum(len(file.data) for files in self._files.values() for file in files)


def _mirrored(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def _rows_by_image(image_ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(image_id, its rows in order) for every image."""
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    return zip(ids.tolist(), np.split(order, starts[1:]), strict=False)
