"""IoU of a few objects given as rows, by masks where both have one and by boxes elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.masks.coco_rle import iou_matrix
from gcdis_ray.metrics.boxes import box_iou_matrix

Row = Mapping[str, Any]
OBJECT_COLUMNS = ("image_id", "mask_rle", "bbox_xyxy", "height_px", "width_px")


def overlap(left: Sequence[Row], right: Sequence[Row]) -> NDArray[np.float64]:
    """IoU of objects of one image, (len(left), len(right)).

    Of masks for a pair where both have one, of boxes for any other pair.
    """
    iou = box_iou_matrix(
        np.array([r["bbox_xyxy"] for r in left]), np.array([r["bbox_xyxy"] for r in right])
    )
    rows, columns = (
        [n for n, r in enumerate(s) if r["mask_rle"] is not None] for s in (left, right)
    )
    if rows and columns:
        size = right[0]["height_px"], right[0]["width_px"]
        iou[np.ix_(rows, columns)] = iou_matrix(
            [left[n]["mask_rle"] for n in rows], [right[n]["mask_rle"] for n in columns], *size
        )
    return iou
