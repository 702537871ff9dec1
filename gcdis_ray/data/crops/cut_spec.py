"""How crops are cut, so that those of other images can be cut alike. No OpenCV at import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CutSpec:
    """Args:
    context: margin on every side, as a share of the box's longer side.
    max_side_px: longer side of a crop; larger ones are scaled down.
    jpeg_quality: 1 to 100.
    """

    context: float
    max_side_px: int
    jpeg_quality: int
