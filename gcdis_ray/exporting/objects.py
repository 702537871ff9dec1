"""What is exported: images with their objects, a shard of the run at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFiles, listed_images
from gcdis_ray.exporting.classes import ExportedClass
from gcdis_ray.store.members import Inputs


@dataclass(frozen=True)
class ExportedObject:
    """An object in an image.

    Args:
        bbox_xyxy: px of the image; x1, y1 exclusive.
        mask_rle: COCO's compressed run lengths of the whole image; None: there is a box only.
        score: probability of the class in [0, 1]; None of a label that was given.
        more: what else is known of it, by name: numbers, or a vector.
        crowd: an area to ignore rather than an object.
    """

    class_index: int
    bbox_xyxy: tuple[float, float, float, float]
    mask_rle: str | None
    score: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    crowd: bool = False


@dataclass(frozen=True)
class ExportedImage:
    """An image and all that is exported of it.

    Args:
        image_id: of the run.
        uri: its file, relative to the data folder.
        given: its labels were given, not made.
        file: the encoded file as it was read, if files were asked for.
    """

    image_id: int
    uri: str
    height_px: int
    width_px: int
    given: bool
    objects: Sequence[ExportedObject]
    file: bytes | None = None


Found = Iterator[tuple[int, ExportedObject]]  # image_id, object


@dataclass(frozen=True)
class ObjectSet:
    """Images of some splits with their objects.

    Args:
        inputs: with members ``images`` and, if there are, ``image_index`` and ``source``.
        readers: each gives the objects of a shard.
    """

    inputs: Inputs
    classes: Sequence[ExportedClass]
    splits: frozenset[str]
    readers: Sequence[Callable[[int], Found]]

    @property
    def num_shards(self) -> int:
        return self.inputs.table("images").num_shards

    def listed(self) -> Iterator[pa.Table]:
        """Columns ``image_id`` and ``uri`` of the images, shard by shard."""
        for shard in listed_images(self.inputs).iter_shards(["image_id", "uri", "split"]):
            yield self._chosen(shard).select(["image_id", "uri"])

    def least_id(self) -> int:
        """The smallest id of an image."""
        shards = (shard["image_id"].to_numpy() for shard in self.listed() if shard.num_rows)
        return min((int(ids.min()) for ids in shards), default=1)

    def images(self, shard: int, *, files: bool) -> Iterator[ExportedImage]:
        """Args: files: whether to read the image files, too."""
        rows = self._chosen(listed_images(self.inputs).shard(shard))
        if not rows.num_rows:
            return
        contents: Sequence[bytes | None] = [None] * rows.num_rows
        if files:
            columns = [*FILE_COLUMNS, "split"]
            stored = self._chosen(self.inputs.table("images").shard(shard, columns))
            contents = [file.data for file in ImageFiles.of(self.inputs).read(stored)]
        objects: dict[int, list[ExportedObject]] = {i: [] for i in rows["image_id"].to_pylist()}
        for read in self.readers:
            for image_id, found in read(shard):
                if image_id in objects:
                    objects[image_id].append(found)
        for row, content in zip(rows.to_pylist(), contents, strict=True):
            yield ExportedImage(
                image_id=row["image_id"],
                uri=row["uri"],
                height_px=row["height_px"],
                width_px=row["width_px"],
                given=row["split"] == "labeled",
                objects=objects[row["image_id"]],
                file=content,
            )

    def _chosen(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.is_in(rows["split"], pa.array(sorted(self.splits))))  # pyright: ignore[reportAttributeAccessIssue]


def box_of(values: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1


def rounded(value: float) -> float:
    """A float32 in as many digits as tell it from its neighbours."""
    return float(str(np.float32(value)))


def rounded_vector(values: NDArray[np.float32]) -> list[float]:
    return [float(str(value)) for value in values]
