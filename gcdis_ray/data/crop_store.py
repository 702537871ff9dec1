"""Crops in memory: decoded once at the cache size if they fit, else decoded when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.errors import DataError


def decode_crops(
    jpegs: Sequence[bytes], mask_pngs: Sequence[bytes], side_px: int
) -> tuple[Tensor, Tensor]:
    """Decode and resize to squares (aspect is not kept, as in the paper).

    Returns:
        images (N, 3, side, side) uint8 RGB; masks (N, 1, side, side) uint8, 0 or 255.

    Raises:
        DataError: bytes that are no image.
    """
    images = np.empty((len(jpegs), side_px, side_px, 3), dtype=np.uint8)
    masks = np.empty((len(jpegs), side_px, side_px), dtype=np.uint8)
    for row, (jpeg, png) in enumerate(zip(jpegs, mask_pngs, strict=True)):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None:
            raise DataError("bytes that are no JPEG or PNG", where=f"crops, row {row} of a read")
        shrinks = image.shape[0] * image.shape[1] > side_px * side_px
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        images[row] = cv2.resize(image, (side_px, side_px), interpolation=how)
        masks[row] = cv2.resize(mask, (side_px, side_px), interpolation=cv2.INTER_NEAREST_EXACT)
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(masks)[:, None],
    )


class CropStore:
    """Random access to the crops of a table.

    Args:
        table: columns ``jpeg`` and ``mask_png``; row i is crop i.
        side_px: side at which crops are kept or decoded.
        budget_mb: decoded crops beyond this many MB are not kept; their encoded bytes are.
    """

    def __init__(self, table: pa.Table, side_px: int, budget_mb: int) -> None:
        self._side_px = side_px
        self._jpegs, self._masks = table["jpeg"], table["mask_png"]
        self._decoded: tuple[Tensor, Tensor] | None = None
        if table.num_rows * side_px * side_px * 4 <= budget_mb * 1_000_000:
            self._decoded = self._decode(range(table.num_rows))

    def _decode(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        jpegs = [self._jpegs[row].as_py() for row in rows]
        return decode_crops(jpegs, [self._masks[row].as_py() for row in rows], self._side_px)

    def get(self, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, side, side) and masks (N, 1, side, side), uint8."""
        if self._decoded is None:
            return self._decode(rows_N.tolist())
        return self._decoded[0][rows_N], self._decoded[1][rows_N]
