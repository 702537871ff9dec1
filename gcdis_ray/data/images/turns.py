"""Turns of a camera: what EXIF says of how stored pixels are to be shown, and doing it.

A turn is EXIF's orientation: 1 as stored, 3 upside down, 6 and 8 on a side, 2, 4, 5 and 7 mirrored
as well.
"""

from __future__ import annotations

import numpy as np

AS_STORED = 1
_TAG = 0x0112
_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of a number, by its type


def turn_of(exif: bytes) -> int:
    """The turn that a block of EXIF asks for, 1 to 8; 1 if it says none or cannot be read, as
    programs that show pictures have it.

    Args:
        exif: as it lies in the file, with or without the mark before it.
    """
    data = exif.removeprefix(b"Exif\0\0")
    if data[:2] not in (b"II", b"MM"):
        return AS_STORED
    order = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * number(first, 2), 12):
        if number(entry, 2) == _TAG:
            value = number(entry + 8, _SIZES.get(number(entry + 2, 2), 2))
            return value if 1 <= value <= 8 else AS_STORED
    return AS_STORED


def turned_size(turn: int, height_px: int, width_px: int) -> tuple[int, int]:
    """(height, width) after a turn."""
    return (width_px, height_px) if turn >= 5 else (height_px, width_px)


def turned(pixels_HW3: np.ndarray, turn: int) -> np.ndarray:
    """Pixels as they are to be shown; the same array if there is nothing to do."""
    if turn == AS_STORED:
        return pixels_HW3
    upright = pixels_HW3.transpose(1, 0, 2) if turn >= 5 else pixels_HW3
    rows = -1 if turn in (3, 4, 7, 8) else 1
    columns = -1 if turn in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(upright[::rows, ::columns])
