"""What the rest of the package may ask of a detector, whatever it is inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.config import Closed

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["box", "rpn", "mean"]
Boxed = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Pixels of an image (H, W, 3), and boxes in it (n, 4), n >= 1."""


@dataclass(frozen=True)
class Limits:
    """What is kept of all that a detector could find in an image.

    ``nms_iou``: of two objects of a class that overlap by more, only the better stays. ``score``:
    ``box`` = probability of the class, ``rpn`` = objectness of the region proposal, ``mean`` =
    their geometric mean; a detector may know ``box`` alone.
    """

    min_score: float
    nms_iou: float
    max_per_image: int
    score: Score = "box"


@dataclass(frozen=True)
class Found:
    """An object in an image.

    ``bbox_xyxy`` px of the image, ``class_index`` in 0..K-1, ``score`` in [0, 1], ``mask_rle`` the
    mask of the full image as in :mod:`gcdis_ray.masks.coco_rle`, of at least one pixel. Run lengths
    because hundreds of bitmaps of a large image would fill the memory: only one is there at a time.
    """

    bbox_xyxy: tuple[float, float, float, float]
    class_index: int
    score: float
    mask_rle: str


class Detector(Protocol):
    """A trained detector. Its answers are of full images; at what size it looks, and whether its
    masks lie in boxes, is its own business. Images do not influence one another."""

    @property
    def config(self) -> Closed:
        """What it is made of."""
        ...

    def find(self, pixels: NDArray[np.uint8], limits: Limits) -> list[Found]:
        """Objects in an image (H, W, 3) RGB, best first.

        Raises:
            ConfigError: it has no such score.
        """
        ...

    def find_all(self, images: Iterable[NDArray[np.uint8]], limits: Limits) -> list[list[Found]]:
        """:meth:`find` of every image, in order. On a CPU they come one after another; on a GPU by
        the batch, whose answers differ from those of one by rounding, while a thread takes more of
        ``images``."""
        ...

    def masks_of_boxes(
        self, pixels: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> list[str | None]:
        """Masks of objects whose boxes are known: nothing is proposed, suppressed or moved.

        Args:
            pixels: (H, W, 3) RGB.
            boxes_xyxy: (n, 4) px of the image, n >= 1.

        Returns:
            per box a mask of the full image, as in :class:`Found`; None if it has no pixel.
        """
        ...

    def masks_of_all_boxes(self, images: Iterable[Boxed]) -> list[list[str | None]]:
        """:meth:`masks_of_boxes` of every image, in order; together as :meth:`find_all` does it."""
        ...

    def pyramid(self, images_N3HW: Tensor) -> Mapping[str, Tensor]:
        """Maps of features (N, C, h, w) by level, of float32 RGB images in [0, 255], which are
        neither resized nor padded."""
        ...
