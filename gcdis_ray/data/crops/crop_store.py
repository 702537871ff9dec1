"""Crops at hand for random access: decoded in memory if they fit, else encoded in a scratch file.

Either way a worker's own memory stays flat in the number of crops: decoded crops are held within a
budget, encoded ones lie in a mapped file whose pages the system can drop and read again.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import BinaryIO

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.errors import DataError, StorageError
from gcdis_ray.store.artifacts import Table

_COLUMNS = ("class_index", "jpeg", "mask_png")
_Encoded = Sequence[bytes] | Sequence[np.ndarray]


def decode_crops(jpegs: _Encoded, mask_pngs: _Encoded, side_px: int) -> tuple[Tensor, Tensor]:
    """Decode and resize to squares (aspect is not kept, as in the paper).

    Args:
        jpegs, mask_pngs: encoded bytes, or uint8 arrays of them.

    Returns:
        images (N, 3, side, side) uint8 RGB; masks (N, 1, side, side) uint8, 0 or 255.

    Raises:
        DataError: bytes that are no image.
    """
    images, masks = _empty(len(jpegs), side_px)
    _decode(jpegs, mask_pngs, images, masks)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), _as_masks(masks)


def _empty(num: int, side_px: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (num, side_px, side_px)
    return np.empty((*shape, 3), dtype=np.uint8), np.empty(shape, dtype=np.uint8)


def _as_masks(masks: np.ndarray) -> Tensor:
    return torch.from_numpy(masks)[:, None]


def _decode(
    jpegs: _Encoded, mask_pngs: _Encoded, images: np.ndarray, masks: np.ndarray, first: int = 0
) -> None:
    """Into images (N, side, side, 3) and masks (N, side, side); ``first`` names the first row."""
    side_px = images.shape[1]
    for row, (jpeg, png) in enumerate(zip(jpegs, mask_pngs, strict=True)):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None:
            raise DataError(
                "bytes that are no JPEG or PNG", where=f"crops, row {first + row} of a read"
            )
        shrinks = image.shape[0] * image.shape[1] > side_px * side_px
        how, size = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR, (side_px, side_px)
        cv2.resize(image, size, dst=images[row], interpolation=how)
        cv2.resize(mask, size, dst=masks[row], interpolation=cv2.INTER_NEAREST_EXACT)


class CropStore:
    """Random access to the crops of a table.

    Args:
        crops: row i is crop i. A handle is read shard by shard and once only: ``class_index``,
            ``jpeg`` and ``mask_png``. A table in memory needs the last two.
        side_px: side at which crops are kept or decoded.
        budget_mb: if all crops fit, decoded, into this many MB, they are kept so. Else encoded: a
            table in memory as it is, a handle's in a file without a name in the temporary folder
            (``TMPDIR``), which is gone when the process is, however it ends.

    Raises:
        DataError: bytes that are no image. StorageError: no room for the scratch file.
    """

    labels: Tensor
    """(N,) int64 class_index of a handle's crops; empty for a table."""

    def __init__(self, crops: pa.Table | Table, side_px: int, budget_mb: int) -> None:
        self._side_px = side_px
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        self._encoded: Callable[[Sequence[int]], tuple[_Encoded, _Encoded]]
        self._labels = np.zeros(0, np.int64)
        shards = [crops] if isinstance(crops, pa.Table) else self._shards(crops)
        if crops.num_rows * side_px * side_px * 4 <= budget_mb * 1_000_000:
            self._decoded = _decode_all(shards, crops.num_rows, side_px)
        elif isinstance(crops, pa.Table):
            self._encoded = partial(_read_held, crops)
        else:
            self._encoded = _Scratch(shards, crops.num_rows).read
        self.labels = torch.from_numpy(self._labels)
        pa.default_memory_pool().release_unused()

    def _shards(self, crops: Table) -> Iterable[pa.Table]:
        self._labels, done = np.empty(crops.num_rows, np.int64), 0
        for shard in crops.iter_shards(_COLUMNS):
            self._labels[done : done + shard.num_rows] = shard["class_index"].to_numpy()
            done += shard.num_rows
            yield shard

    def get(self, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, side, side), channels last in memory; masks (N, 1, side, side); uint8."""
        if self._decoded is None:
            images, masks = _empty(len(rows_N), self._side_px)
            _decode(*self._encoded(rows_N.tolist()), images, masks)
        else:
            images, masks = (np.take(kept, rows_N.numpy(), axis=0) for kept in self._decoded)
        return torch.from_numpy(images).permute(0, 3, 1, 2), _as_masks(masks)


def _read_held(crops: pa.Table, rows: Sequence[int]) -> tuple[_Encoded, _Encoded]:
    jpegs, pngs = ([crops[name][row].as_py() for row in rows] for name in _COLUMNS[1:])
    return jpegs, pngs


def _decode_all(
    shards: Iterable[pa.Table], num_rows: int, side_px: int
) -> tuple[np.ndarray, np.ndarray]:
    images, masks = _empty(num_rows, side_px)
    done = 0
    for shard in shards:
        here = slice(done, done + shard.num_rows)
        jpegs, pngs = shard["jpeg"].to_pylist(), shard["mask_png"].to_pylist()
        _decode(jpegs, pngs, images[here], masks[here], first=done)
        done += shard.num_rows
    return images, masks


class _Scratch:
    """Encoded crops in one mapped file. In memory: 24 bytes a crop, where they start and end."""

    def __init__(self, shards: Iterable[pa.Table], num_rows: int) -> None:
        self._starts = np.empty((2, num_rows), np.int64)  # of JPEGs, of masks
        self._sizes = np.empty((2, num_rows), np.uint32)
        done, end = 0, 0
        try:
            with tempfile.TemporaryFile(prefix="gcdis-crops-") as file:
                for shard in shards:
                    here = slice(done, done + shard.num_rows)
                    for column, name in enumerate(_COLUMNS[1:]):
                        bounds = end + _write(shard[name], file)
                        self._starts[column, here] = bounds[:-1]
                        self._sizes[column, here] = np.diff(bounds)
                        end = int(bounds[-1])
                    done += shard.num_rows
                file.flush()
                self._bytes = _map(file, end)  # the map outlives the file's handle
        except OSError as error:
            raise StorageError(
                f"cannot keep encoded crops there ({error.strerror or error})",
                where=tempfile.gettempdir(),
                fix="free space there, point TMPDIR elsewhere, or raise cache_mb if memory allows",
            ) from error

    def read(self, rows: Sequence[int]) -> tuple[_Encoded, _Encoded]:
        """JPEGs and PNGs of rows: views of the map."""
        jpegs, pngs = (
            [
                self._bytes[start : start + size]
                for start, size in zip(starts[rows].tolist(), sizes[rows].tolist(), strict=True)
            ]
            for starts, sizes in zip(self._starts, self._sizes, strict=True)
        )
        return jpegs, pngs


def _write(column: pa.ChunkedArray, file: BinaryIO) -> np.ndarray:
    """Append all values of a binary column. Returns where each starts and the last ends, counted
    from the first."""
    bounds, end = [np.zeros(1, np.int64)], 0
    for chunk in column.chunks:
        if len(chunk) == 0:
            continue
        wide = chunk.cast(pa.large_binary())
        _, offsets, values = wide.buffers()
        places = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
        file.write(memoryview(values)[places[0] : places[-1]])
        bounds.append(places[1:] - places[0] + end)
        end = int(bounds[-1][-1])
    return np.concatenate(bounds)


def _map(file: BinaryIO, size: int) -> np.ndarray:
    if size == 0:
        return np.zeros(0, np.uint8)
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # crops are asked for in any order: no read-ahead
    return np.frombuffer(mapped, np.uint8)
