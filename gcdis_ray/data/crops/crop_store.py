"""Crops at hand for random access: decoded in memory if they fit, else encoded in a scratch file.

Either way they are there once per machine, whatever the number of workers, and a worker's own
memory stays flat in the number of crops (:mod:`gcdis_ray.files.shared_table`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.errors import DataError
from gcdis_ray.files.shared_table import RandomRows, shared_table
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import CROPS

_COLUMNS = ("class_index", "jpeg", "mask_png")
_ENCODED = pa.schema([CROPS.field(name) for name in _COLUMNS])
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
        crops: row i is crop i. A handle is read shard by shard, ``class_index``, ``jpeg`` and
            ``mask_png``, by one worker of the machine. A table in memory needs the last two.
        side_px: side at which crops are kept or decoded.
        budget_mb: if all crops fit, decoded, into this many MB, they are kept so. Else encoded: a
            table in memory as it is, a handle's in a file without a name in the temporary folder
            (``TMPDIR``), which is gone when the last worker is, however it ends.

    Raises:
        DataError: bytes that are no image. StorageError: no room for the scratch file.
    """

    labels: Tensor
    """(N,) int64 class_index of a handle's crops; empty for a table."""

    def __init__(self, crops: pa.Table | Table, side_px: int, budget_mb: int) -> None:
        self._side_px = side_px
        self._is_decoded = crops.num_rows * side_px * side_px * 4 <= budget_mb * 1_000_000
        decoded = partial(_decoded, side_px=side_px)
        labels = np.zeros(0, np.int64)
        if isinstance(crops, pa.Table):
            kept = pa.concat_tables(decoded([crops])) if self._is_decoded else crops
        else:
            shards = partial(crops.iter_shards, _COLUMNS)
            what = f"decoded {side_px} {cv2.__version__}" if self._is_decoded else "encoded"
            kept = shared_table(
                f"crops {what} {crops.digest}",
                _decoded_schema(side_px) if self._is_decoded else _ENCODED,
                (lambda: decoded(shards())) if self._is_decoded else shards,
                in_memory=self._is_decoded,
            )
            labels = kept["class_index"].to_numpy().astype(np.int64)
        self._rows = RandomRows(kept)
        self.labels = torch.from_numpy(labels)
        pa.default_memory_pool().release_unused()

    def get(self, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, side, side), channels last in memory; masks (N, 1, side, side); uint8."""
        images, masks = _empty(len(rows_N), self._side_px)
        jpegs, pngs = (self._rows.values(name, rows_N.numpy()) for name in _COLUMNS[1:])
        if not self._is_decoded:
            _decode(jpegs, pngs, images, masks)
        else:
            for row, (image, mask) in enumerate(zip(jpegs, pngs, strict=True)):
                images[row].reshape(-1)[:], masks[row].reshape(-1)[:] = image, mask
        return torch.from_numpy(images).permute(0, 3, 1, 2), _as_masks(masks)


def _decoded_schema(side_px: int) -> pa.Schema:
    """As of encoded crops, pixels in place of JPEG and PNG."""
    pixels = side_px * side_px
    kinds = pa.int32(), pa.binary(3 * pixels), pa.binary(pixels)
    return pa.schema(list(zip(_COLUMNS, kinds, strict=True)))


def _decoded(shards: Iterable[pa.Table], side_px: int) -> Iterator[pa.Table]:
    done, schema = 0, _decoded_schema(side_px)
    for shard in shards:
        num = shard.num_rows
        images, masks = _empty(num, side_px)
        jpegs, pngs = (shard[name].to_pylist() for name in _COLUMNS[1:])
        _decode(jpegs, pngs, images, masks, first=done)
        done += num
        pixels = [
            pa.Array.from_buffers(kind, num, [None, pa.py_buffer(values)])
            for kind, values in zip(schema.types[1:], (images, masks), strict=True)
        ]
        labels = shard["class_index"] if "class_index" in shard.column_names else [-1] * num
        yield pa.table([labels, *pixels], schema=schema)
