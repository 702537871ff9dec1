"""How far a discovered class can be trusted, judged without any truth, in words to act on.

Known classes are the measure: their labels are given, so what most of them reach can be asked of a
discovered one. Other thresholds are ranks within the run, or the half of a class; none is a number
tuned to some data. What a class is judged by (:class:`Judged`) is shown beside the words.

Shape letters: C classes, D dimensions, S crops that classes are judged by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.report.class_points import ClassPoints, Floats

NEAREST = 5  # known classes that are told of a class
_FEWEST = 4  # crops that a class can be judged by: two halves of two
_BLOCK = 1 << 22  # numbers of a block of similarities
_ROUNDS = 20  # of two-means


class Verdict(Enum):
    """What to do with a class, the most urgent first; the value stands over the table."""

    MIXED = "mixed: look before you use it"
    TWO = "looks like two classes: consider gcdis name --split"
    CLOSE = "close to another class: compare the two before you name it"
    DOUBTFUL = "doubtful: look at its least trusted crops"
    FEW = "too few crops to judge: look at each"
    SAFE = "stable and apart: safe to name"


@dataclass(frozen=True)
class Judged:
    """What is known of one class without any truth.

    Args:
        silhouette: mean over its crops of (b - a) / max(a, b), a and b being the cosine distances
            to the mean of their own class and of the nearest other: in [-1, 1].
        kept: share of its crops that lie nearest to the mean of their own class: what a step of
            k-means would leave where it is.
        gap: cosine distance from its mean to that of the nearest other class, in [0, 2].
        width: the same between its two halves, as two-means finds them; None of few crops.
        nearest: class_index of that nearest other class; None where there is no other.
        nearest_known: class_index and cosine of the nearest known classes, nearest first.
        num_judged: crops that this is known of.
        stability: mean of its unlabeled crops; None without pseudo-labels.
        placed: crops in common with the cluster that crops were placed in before training and
            that has most in common, as a share of those in either; None where none were placed.
    """

    silhouette: float
    kept: float
    gap: float
    width: float | None
    nearest: int | None
    nearest_known: Sequence[tuple[int, float]]
    num_judged: int
    stability: float | None = None
    placed: float | None = None


def judge(
    points: ClassPoints,
    known: NDArray[np.int64],
    stability: Mapping[int, float],
    placed: Mapping[int, float],
) -> dict[int, Judged]:
    """By class_index, for every class with a crop.

    Args:
        known: class_index of the known classes.
        stability, placed: as in :class:`Judged`, by class_index; may be empty.
    """
    own_S, other_S = _similarities(points)
    apart_S = 1 - np.stack([own_S, other_S])
    silhouette_S = (apart_S[1] - apart_S[0]) / np.maximum(apart_S.max(axis=0), 1e-12)
    cosine_CC = points.means_CD @ points.means_CD.T
    np.fill_diagonal(cosine_CC, -np.inf)
    known_K = np.flatnonzero(np.isin(points.classes_C, known))
    order = np.argsort(points.place_S, kind="stable")
    parts = np.split(order, np.searchsorted(points.place_S[order], np.arange(1, len(cosine_CC))))
    found = {}
    for c, (index, here) in enumerate(zip(points.classes_C.tolist(), parts, strict=True)):
        others_K = known_K[known_K != c]
        best_K = others_K[np.argsort(-cosine_CC[c, others_K], kind="stable")][:NEAREST]
        nearest = int(cosine_CC[c].argmax()) if len(cosine_CC) > 1 else None
        found[index] = Judged(
            float(silhouette_S[here].mean()),
            float((own_S >= other_S)[here].mean()),
            2.0 if nearest is None else 1 - float(cosine_CC[c, nearest]),
            _width(points.sample_SD[here]),
            None if nearest is None else int(points.classes_C[nearest]),
            [(int(points.classes_C[k]), float(cosine_CC[c, k])) for k in best_K],
            len(here),
            stability.get(index),
            placed.get(index),
        )
    return found


def _similarities(points: ClassPoints) -> tuple[Floats, Floats]:
    """(S,) cosines with the mean of the own class, and with the nearest other."""
    own_S, other_S = (np.full(len(points.sample_SD), -1.0) for _ in range(2))
    step = max(1, _BLOCK // max(len(points.means_CD), 1))
    means_DC = points.means_CD.T.astype(points.sample_SD.dtype)
    for low in range(0, len(own_S), step):
        block = slice(low, low + step)
        cosine_BC = points.sample_SD[block] @ means_DC
        mine = np.arange(len(cosine_BC)), points.place_S[block]
        own_S[block] = cosine_BC[mine]
        cosine_BC[mine] = -1
        other_S[block] = cosine_BC.max(axis=1)
    return own_S, other_S


def _width(rows_ND: Floats) -> float | None:
    """Cosine distance between the means of the two halves; two-means starts from the sides of the
    direction of most variance, so it needs no draw."""
    if len(rows_ND) < _FEWEST:
        return None
    centred_ND = rows_ND - rows_ND.mean(axis=0)
    _, axes_NN = np.linalg.eigh(centred_ND @ centred_ND.T)
    one_N = axes_NN[:, -1] > 0
    for _ in range(_ROUNDS):
        if one_N.all() or not one_N.any():
            return 0.0
        centres_2D = np.stack([rows_ND[~one_N].mean(axis=0), rows_ND[one_N].mean(axis=0)])
        again_N = centred_ND @ (centres_2D[1] - centres_2D[0]) > (
            (centres_2D.mean(axis=0) - rows_ND.mean(axis=0)) @ (centres_2D[1] - centres_2D[0])
        )
        if (again_N == one_N).all():
            break
        one_N = again_N
    lengths = np.linalg.norm(centres_2D, axis=1)
    return 1 - float(centres_2D[0] @ centres_2D[1] / max(lengths.prod(), 1e-12))


def verdicts(
    judged: Mapping[int, Judged], known: Sequence[int], novel: Sequence[int]
) -> dict[int, Verdict]:
    """By class_index, for each discovered class that has a crop.

    A class is *loose* if its silhouette is below that of three in four known classes (of three in
    four discovered ones, where fewer than three known classes have crops), and *wide* if its two
    halves lie further apart than it lies from its nearest class. It is *unstable* if its stability
    is in the lowest quarter of the discovered classes, and *disputed* if less than half of it is
    what a step of k-means, or the clusters before training, would have.
    """
    found = {index: judged[index] for index in novel if index in judged}
    measure = [judged[index].silhouette for index in known if index in judged]
    if len(measure) < 3:
        measure = [item.silhouette for item in found.values()]
    least = float(np.quantile(measure, 0.25)) if measure else 0.0
    stable = [item.stability for item in found.values() if item.stability is not None]
    shaky = float(np.quantile(stable, 0.25)) if len(stable) >= _FEWEST else -np.inf

    def of(item: Judged) -> Verdict:
        if item.width is None:
            return Verdict.FEW
        loose, wide = item.silhouette < least, item.width > item.gap
        if loose and wide:
            return Verdict.MIXED
        if wide:
            return Verdict.TWO
        if loose:
            return Verdict.CLOSE
        unstable = item.stability is not None and item.stability < shaky
        disputed = item.kept < 0.5 or (item.placed is not None and item.placed < 0.5)
        return Verdict.DOUBTFUL if unstable or disputed else Verdict.SAFE

    return {index: of(item) for index, item in found.items()}


def best_overlaps(ours_N: NDArray[np.int64], theirs_N: NDArray[np.int64]) -> dict[int, float]:
    """For each class of one partition: crops in common with the class of another partition that
    has most in common, as a share of those in either.

    Args:
        ours_N, theirs_N: class of each crop; negative: in none, and not counted.
    """
    both = (ours_N >= 0) & (theirs_N >= 0)
    ours, theirs = ours_N[both], theirs_N[both]
    if not len(ours):
        return {}
    size_a, size_b = np.bincount(ours), np.bincount(theirs)
    pairs, common = np.unique(ours * len(size_b) + theirs, return_counts=True)
    a, b = np.divmod(pairs, len(size_b))
    share = common / (size_a[a] + size_b[b] - common)
    best = np.zeros(len(size_a))
    np.maximum.at(best, a, share)
    return {index: float(best[index]) for index in np.flatnonzero(size_a).tolist()}
