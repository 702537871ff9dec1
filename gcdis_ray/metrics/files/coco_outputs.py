"""Which true objects the category ids of a results file meet, where these are names of clusters.

Nothing is kept of a detection but its image, id, score, and overlaps of at least 0.5, so that files
of any size can be counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gcdis_ray.files.arrow_columns import as_column
from gcdis_ray.metrics.ap_rows import common_pairs, given_boxes
from gcdis_ray.metrics.detection_columns import best_of_image
from gcdis_ray.metrics.detection_matching import Bools, Edges, Floats, Ints
from gcdis_ray.metrics.files.coco_columns import Checks
from gcdis_ray.metrics.files.coco_files import GroundTruthFile
from gcdis_ray.metrics.files.coco_results import scan
from gcdis_ray.metrics.one_to_one import greedy_edges
from gcdis_ray.metrics.overlaps import Masks, box_edges, mask_edges
from gcdis_ray.training.plan import Show

MATCH_IOU = 0.5


@dataclass(frozen=True)
class OutputCounts:
    """How often detections of each id were matched to an object of each class: P pairs.

    ``ids_K`` are all ids of the images that were looked at, rising; ``most`` is the greatest number
    of detections of one of them.
    """

    ids_K: Ints
    output_P: Ints  # position in ids_K
    class_P: Ints  # column
    count_P: Ints
    most: int


def count_outputs(
    path: Path,
    ground_truth: GroundTruthFile,
    images_I: Bools,
    max_per_image: int,
    show: Show = lambda progress: None,
) -> OutputCounts:
    """Match detections to true objects greedily, one to one by falling IoU in every image.

    By masks where both have one, else by boxes, from an IoU of 0.5. Crowds are no objects. Ties go
    to the detection that comes first, then to the lower category.

    Args:
        images_I: which images of the truth are looked at.
        max_per_image: only the best of an image are matched.
        show: how much has been read.

    Raises:
        DataError: see :func:`gcdis_ray.metrics.files.coco_results.read_results`. Ids may be any.
    """

    def start() -> _Met:
        return _Met(ground_truth, images_I)

    return scan(path, ground_truth, start, any_category=True, show=show).counts(max_per_image)


class _Met:
    """Detections so far, and the objects they overlap."""

    def __init__(self, ground_truth: GroundTruthFile, images_I: Bools) -> None:
        truth = ground_truth.truth
        self._checks, self._images_I = Checks(ground_truth), images_I
        rows = np.flatnonzero(~truth.crowd_G & images_I[truth.image_G])
        self._image_G, self._class_G = truth.image_G[rows], truth.class_G[rows]
        self._masks_G = truth.masks.take(rows)
        self._masked_G = ~self._masks_G.missing()
        self._bbox_G4 = truth.bbox_G4[rows]
        self._num = 0
        self._image, self._category, self._score = [], [], []
        self._edges: list[Edges] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Raises:
        pa.ArrowInvalid: something is wrong with one of these detections.
        """
        found = self._checks.records(batch)
        rows = np.flatnonzero((found.image_I >= 0) & self._images_I[found.image_I])
        rows = rows[np.argsort(found.image_I[rows], kind="stable")]
        found.mask_areas(rows)  # checks the run lengths
        image = found.image_I[rows]
        text = found.text.take(as_column(rows)).cast(pa.large_string())
        masks = Masks(pa.chunked_array([text]), found.size_N2[rows])
        for edges in (self._by_mask(image, masks), self._by_box(image, masks, found.bbox_N4[rows])):
            detection = edges.detection_E + self._num
            self._edges.append(Edges(detection, edges.object_E, edges.iou_E))
        self._image.append(image.astype(np.int32))
        self._category.append(found.category_id[rows])
        self._score.append(found.score[rows])
        self._num += len(rows)

    def _by_mask(self, image_D: Ints, masks: Masks) -> Edges:
        d, g = np.flatnonzero(~masks.missing()), np.flatnonzero(self._masked_G)
        pairs = common_pairs(image_D[d], self._image_G[g])
        none = np.zeros(len(g), np.bool_)
        found = mask_edges(masks.take(d), self._masks_G.take(g), none, pairs)
        return Edges(d[found.detection_E], g[found.object_E], found.iou_E)

    def _by_box(self, image_D: Ints, masks: Masks, bbox_D4: Floats) -> Edges:
        """Pairs of which one has no mask."""
        masked_D = ~masks.missing()
        lone_d, lone_g = image_D[~masked_D], self._image_G[~self._masked_G]
        d = np.flatnonzero(~masked_D | np.isin(image_D, lone_g))
        g = np.flatnonzero(~self._masked_G | np.isin(self._image_G, lone_d))
        g = g[np.isin(self._image_G[g], image_D)]
        boxes_d = given_boxes(bbox_D4, masks, d)[d]
        boxes_g = given_boxes(self._bbox_G4, self._masks_G, g)[g]
        pairs = common_pairs(image_D[d], self._image_G[g])
        found = box_edges(boxes_d, boxes_g, np.zeros(len(g), np.bool_), pairs)
        row_d, row_g = d[found.detection_E], g[found.object_E]
        keep = ~(masked_D[row_d] & self._masked_G[row_g])
        return Edges(row_d[keep], row_g[keep], found.iou_E[keep])

    def counts(self, max_per_image: int) -> OutputCounts:
        none = np.zeros(0, np.int64)
        image = np.concatenate([none, *self._image])
        score = np.concatenate([np.zeros(0), *self._score])
        ids, output = np.unique(np.concatenate([none, *self._category]), return_inverse=True)
        is_best = np.zeros(self._num, np.bool_)
        is_best[best_of_image(image, score, max_per_image)] = True
        detection = np.concatenate([none, *(e.detection_E for e in self._edges)])
        object_ = np.concatenate([none, *(e.object_E for e in self._edges)])
        iou = np.concatenate([np.zeros(0), *(e.iou_E for e in self._edges)])
        keep = is_best[detection] & (iou >= MATCH_IOU)
        pairs = greedy_edges(Edges(detection[keep], object_[keep], iou[keep]))
        met = np.stack([output[pairs.detection_E], self._class_G[pairs.object_E]], axis=1)
        met, count = np.unique(met, axis=0, return_counts=True)
        most = int(np.bincount(image).max(initial=0))
        return OutputCounts(ids, met[:, 0], met[:, 1], count, most)
