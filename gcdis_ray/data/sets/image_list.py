"""The images of a set as columns: a million of them take some hundred megabytes, not some hundred
bytes and an object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.lookup import places

_ROWS_AT_ONCE = 16_384
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("height_px", pa.int32()),
        pa.field("width_px", pa.int32()),
        pa.field("file_id", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image to read. Sizes are those of the annotation file, None for a plain folder."""

    image_id: int
    uri: str  # relative to root
    height_px: int | None
    width_px: int | None
    file_id: int | None  # the annotation file's own id


class ImageList(Sequence[SourceImage]):
    """Images by rising ``image_id``; a row is a :class:`SourceImage`."""

    def __init__(self, images: Iterable[SourceImage] | pa.Table) -> None:
        table: pa.Table = images if isinstance(images, pa.Table) else _columns(images)  # pyright: ignore[reportAssignmentType]
        order = np.argsort(table["image_id"].to_numpy(), kind="stable")
        if (np.diff(order) < 0).any():
            table = table.take(pa.array(order))
        self.table: pa.Table = table.combine_chunks()

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, index: int) -> SourceImage: ...
    @overload
    def __getitem__(self, index: slice) -> ImageList: ...
    def __getitem__(self, index: int | slice) -> SourceImage | ImageList:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("a part of an image list is a range")
            return ImageList(self.table.slice(start, max(0, stop - start)))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return SourceImage(**self.table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[SourceImage]:
        for batch in self.table.to_batches(_ROWS_AT_ONCE):
            columns = (column.to_pylist() for column in batch.columns)
            yield from map(SourceImage, *columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageList) and self.table.equals(other.table)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def uris(self) -> Iterator[str]:
        for batch in self.table.select(["uri"]).to_batches(_ROWS_AT_ONCE):
            yield from batch.column(0).to_pylist()

    def take(self, chosen: NDArray[np.bool_]) -> ImageList:
        """The images for which ``chosen``, one flag per row, is true."""
        return ImageList(self.table.filter(pa.array(chosen)))

    @cached_property
    def image_id_N(self) -> NDArray[np.int64]:
        return self.table["image_id"].to_numpy()

    @cached_property
    def size_px_N2(self) -> NDArray[np.int32]:
        """Height and width, (N, 2); -1 where unknown."""
        columns = (self.table[name].fill_null(-1).to_numpy() for name in ("height_px", "width_px"))
        return np.stack(list(columns), axis=1)

    @cached_property
    def _by_file_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        file_id = self.table["file_id"].fill_null(-1).to_numpy()
        order = np.argsort(file_id, kind="stable")
        return file_id[order], order

    def rows_of(self, file_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each image by the annotation file's id, -1 for images that are not in the list."""
        known, order = self._by_file_id
        place = np.where(file_ids < 0, -1, places(file_ids, known))
        return np.append(order, -1)[place]  # the last one for those that are not there


def _columns(images: Iterable[SourceImage]) -> pa.Table:
    rest, batches = iter(images), []
    while rows := list(islice(rest, _ROWS_AT_ONCE)):
        batches.append(
            pa.record_batch(
                [[getattr(row, field.name) for row in rows] for field in _SCHEMA], schema=_SCHEMA
            )
        )
    return pa.Table.from_batches(batches, _SCHEMA)
