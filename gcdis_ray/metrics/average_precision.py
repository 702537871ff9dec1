"""Average precision as COCO and LVIS define it: matching of detections to objects, then curves.

Plain numpy on intersection-over-union matrices; masks and files are none of its business. Only
pairs of image and class that hold anything are ever looked at, so the cost follows the number of
detections and not images x classes (which is what makes LVIS affordable).

Shape letters: D detections of one image and class by falling score, G objects of it, A area
ranges, T IoU thresholds, R recall points, K classes, M numbers of detections per image and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

IOU_T: Floats = np.linspace(0.5, 0.95, 10)
RECALL_R: Floats = np.linspace(0.0, 1.0, 101)
AREAS = ("all", "small", "medium", "large")
AREA_RANGES_PX: Floats = np.array(
    [[0, 1e10], [0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]], dtype=np.float64
)


def outside_areas(area_px: NDArray[np.floating]) -> Bools:
    """Which areas lie outside each range: (N,) in pixels -> (A, N)."""
    low, high = AREA_RANGES_PX[:, :1], AREA_RANGES_PX[:, 1:]
    return (area_px[None, :] < low) | (area_px[None, :] > high)


def match_pair(
    iou_DG: Floats, ignored_AG: Bools, crowd_G: Bools, outside_AD: Bools
) -> tuple[Bools, Bools]:
    """Greedy matching of one image and class, every threshold and area range at once.

    A detection takes the free object of highest IoU (the later one among equals), one that counts
    before one that is ignored; a crowd object can be taken again and again.

    Args:
        iou_DG: IoU in [0, 1], rows by falling score.
        ignored_AG: objects that neither help nor hurt (crowd, other size).
        crowd_G: objects that stand for a group.
        outside_AD: detections whose own area lies outside the range, ignored when unmatched.

    Returns:
        matched_ATD and ignored_ATD.
    """
    num_d, num_g = iou_DG.shape
    num_a, num_t = len(ignored_AG), len(IOU_T)
    matched = np.zeros((num_a, num_t, num_d), dtype=np.bool_)
    ignored = np.zeros_like(matched)
    if num_g:
        threshold_T1 = np.minimum(IOU_T, 1 - 1e-10)[:, None]
        free_ATG = np.ones((num_a, num_t, num_g), dtype=np.bool_)
        ignored_A1G = ignored_AG[:, None, :]
        for d in np.flatnonzero(iou_DG.max(axis=1) >= threshold_T1[0]):
            fits = free_ATG & (iou_DG[d] >= threshold_T1)
            counts = fits & ~ignored_A1G
            any_counts = counts.any(axis=2)
            candidates = np.where(any_counts[:, :, None], counts, fits)
            value = np.where(candidates, iou_DG[d], -1.0)
            best = num_g - 1 - np.argmax(value[:, :, ::-1], axis=2)
            found = candidates.any(axis=2)
            matched[:, :, d] = found
            ignored[:, :, d] = found & ~any_counts
            a, t = np.nonzero(found & ~crowd_G[best])
            free_ATG[a, t, best[a, t]] = False
    ignored |= ~matched & outside_AD[:, None, :]
    return matched, ignored


@dataclass
class ClassRecord:
    """Everything seen of one class, in the order of images and, within one, of falling score."""

    num_objects_A: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(AREAS), dtype=np.int64)
    )
    scores: list[Floats] = field(default_factory=list)
    matched: list[Bools] = field(default_factory=list)
    ignored: list[Bools] = field(default_factory=list)

    def add(self, score_D: Floats, matched_ATD: Bools, ignored_ATD: Bools) -> None:
        self.scores.append(score_D)
        self.matched.append(matched_ATD)
        self.ignored.append(ignored_ATD)


@dataclass(frozen=True)
class Curves:
    """Precision and recall of every class; -1 where a class has no object that counts."""

    precision_ATRK: Floats  # with the largest number of detections
    recall_MATK: Floats

    def ap(
        self, classes: Sequence[int] | None = None, iou: float | None = None, area: str = "all"
    ) -> float | None:
        """Mean precision over thresholds, recall points and classes, in [0, 1].

        Args:
            classes: columns to average over, all if not given.
            iou: one of :data:`IOU_T`; all of them if not given.

        Returns:
            None if none of the classes has an object.
        """
        values = self.precision_ATRK[AREAS.index(area)]
        return _mean(_select(values, iou, classes))

    def ar(self, m: int, classes: Sequence[int] | None = None, area: str = "all") -> float | None:
        """Mean of the highest recall over thresholds and classes, with the ``m``-th cap."""
        return _mean(_select(self.recall_MATK[m, AREAS.index(area)], None, classes))


def _select(values: Floats, iou: float | None, classes: Sequence[int] | None) -> Floats:
    if iou is not None:
        values = values[np.isclose(IOU_T, iou)]
    return values if classes is None else values[..., np.asarray(classes, dtype=np.int64)]


def _mean(values: Floats) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def curves(records: Sequence[ClassRecord], max_dets: Sequence[int | None]) -> Curves:
    """Precision at 101 recall points and final recall of every class.

    Args:
        records: one per class.
        max_dets: caps on detections per image and class, rising; None is no cap. Precision is
            taken with the last.
    """
    shape = (len(AREAS), len(IOU_T))
    precision = np.full((*shape, len(RECALL_R), len(records)), -1.0)
    recall = np.full((len(max_dets), *shape, len(records)), -1.0)
    for k, record in enumerate(records):
        counted = np.flatnonzero(record.num_objects_A)
        if not len(counted):
            continue
        if not record.scores:
            precision[counted, :, :, k] = 0
            recall[:, counted, :, k] = 0
            continue
        rank = np.concatenate([np.arange(len(s)) for s in record.scores])
        score = np.concatenate(record.scores)
        hit = np.concatenate(record.matched, axis=2)
        used = ~np.concatenate(record.ignored, axis=2)
        for m, cap in enumerate(max_dets):
            keep = slice(None) if cap is None else rank < cap
            true = (hit & used)[:, :, keep].sum(axis=2)
            recall[m, counted, :, k] = true[counted] / record.num_objects_A[counted, None]
        cap = max_dets[-1]
        order = np.argsort(-score, kind="stable")
        if cap is not None:
            order = order[rank[order] < cap]
        for a in counted:
            precision[a, :, :, k] = _precision_TR(
                (hit & used)[a][:, order], (~hit & used)[a][:, order], record.num_objects_A[a]
            )
    return Curves(precision, recall)


def _precision_TR(true_TD: Bools, false_TD: Bools, num_objects: int) -> Floats:
    """Interpolated precision: the highest one at this recall or any higher."""
    tp = np.cumsum(true_TD, axis=1, dtype=np.float64)
    fp = np.cumsum(false_TD, axis=1, dtype=np.float64)
    precision = tp / (fp + tp + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros((len(IOU_T), len(RECALL_R)))
    for t, recall_D in enumerate(tp / num_objects):
        index = np.searchsorted(recall_D, RECALL_R, side="left")
        reached = index < len(recall_D)
        result[t, reached] = precision[t, index[reached]]
    return result
