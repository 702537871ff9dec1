"""Masks of objects in the form that a format wants, and what is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gcdis_ray.exporting.objects import ExportedImage, ExportedObject
from gcdis_ray.masks.coco_rle import area
from gcdis_ray.masks.outlines import Polygon, box_polygon, outlines_of

_LOW_IOU = 0.9


@dataclass
class Shapes:
    """Counts what it gives.

    Args:
        min_iou: how much of a mask its polygons must keep; 1: all of it.
    """

    min_iou: float
    num_masks: int = 0  # as polygons
    num_boxes: int = 0  # objects with a box only, drawn as it
    num_low: int = 0
    points: int = 0
    sum_iou: float = 0.0
    least_iou: float = field(default=1.0)

    def polygons(self, image: ExportedImage, found: ExportedObject) -> list[Polygon]:
        """One for each part of the object, in pixels."""
        if found.mask_rle is None:
            self.num_boxes += 1
            return [box_polygon(found.bbox_xyxy)]
        size = image.height_px, image.width_px
        outlines = outlines_of(found.mask_rle, *size, min_iou=self.min_iou)
        self.num_masks += 1
        self.points += sum(map(len, outlines.polygons))
        self.sum_iou += outlines.iou
        self.least_iou = min(self.least_iou, outlines.iou)
        self.num_low += outlines.iou < _LOW_IOU
        return outlines.polygons

    def told(self) -> dict[str, Any] | None:
        """What polygons have kept of masks; None if none was made."""
        if not self.num_masks:
            return None
        return {
            "masks": self.num_masks,
            "points": self.points,
            "mean_iou": round(self.sum_iou / self.num_masks, 4),
            "least_iou": round(self.least_iou, 4),
            f"below_{_LOW_IOU}": self.num_low,
        }


def is_empty(image: ExportedImage, found: ExportedObject) -> bool:
    """Whether the object's mask covers no pixel."""
    if found.mask_rle is None:
        return False
    return area(found.mask_rle, image.height_px, image.width_px) == 0
