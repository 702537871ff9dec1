"""Reliability-based dynamic learning (RDL) of GCDIS: how far, how long, to trust a pseudo-label.

Shape letters: N instances, K classes, T snapshots (the last one is the judge).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Stability = Literal["inv_sum", "neg_mean_kl", "last_k_agreement"]
Decay = Literal["none", "global_cut", "classwise_cut", "quadratic", "quadratic_global"]


def stability(
    probabilities_TNK: NDArray[np.floating],
    mode: Stability = "inv_sum",
    *,
    probability_floor: float = 1e-8,
    divergence_floor: float = 1e-6,
) -> FloatArray:
    """s_i: agreement of earlier snapshots with the last one; larger is more stable.

    Args:
        probabilities_TNK: q of each snapshot, oldest first, T >= 2. Floored and renormalised.
        mode: ``inv_sum`` is the paper, sum_t 1 / KL(q_T || q_t); the closest snapshot dominates
            it. ``neg_mean_kl`` is -mean_t KL; ``last_k_agreement`` the share of earlier
            snapshots with the last one's argmax.
    """
    if mode == "last_k_agreement":
        choice_TN = probabilities_TNK.argmax(axis=2)
        return (choice_TN[:-1] == choice_TN[-1]).mean(axis=0)
    floored = np.maximum(probabilities_TNK.astype(np.float64), probability_floor)
    floored /= floored.sum(axis=2, keepdims=True)
    last_NK = floored[-1]
    divergence_TN = (last_NK * (np.log(last_NK) - np.log(floored[:-1]))).sum(axis=2)
    divergence_TN = np.maximum(divergence_TN, divergence_floor)
    if mode == "neg_mean_kl":
        return -divergence_TN.mean(axis=0)
    return (1.0 / divergence_TN).sum(axis=0)


def margin(
    probabilities_NK: NDArray[np.floating], *, probability_floor: float = 1e-8
) -> FloatArray:
    """log p_1 - log p_2 of the two largest probabilities: how far the second choice is. Of a
    softmax over similarities to centres, it is the margin to the second centre, up to a factor.

    Args:
        probabilities_NK: floored; K >= 1. Where there is one output, the second has the floor.
    """
    floored = np.maximum(probabilities_NK.astype(np.float64), probability_floor)
    ranked = np.sort(floored, axis=1)
    runner_up = ranked[:, -2] if ranked.shape[1] > 1 else probability_floor
    return np.log(ranked[:, -1]) - np.log(runner_up)


def rank_share(scores_N: FloatArray) -> FloatArray:
    """u_i = ascending rank / N in (0, 1]; equal scores share their mean rank."""
    _, inverse, counts = np.unique(scores_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2.0
    return mean_rank[inverse.reshape(-1)] / max(len(scores_N), 1)


def classwise_rank_share(scores_N: FloatArray, classes_N: NDArray[np.integer]) -> FloatArray:
    """:func:`rank_share` within each class: a singleton gets 1, rare classes are not starved."""
    shares = np.empty(len(scores_N), dtype=np.float64)
    for label in np.unique(classes_N):
        rows = classes_N == label
        shares[rows] = rank_share(scores_N[rows])
    return shares


def kappa(
    rank_N: FloatArray,
    progress: float,
    mode: Decay = "quadratic",
    *,
    scale: float = 1.0,
    drop_share: float = 0.5,
    global_rank_N: FloatArray | None = None,
) -> FloatArray:
    """Weight of each pseudo-labeled instance in the segmenter's loss at ``progress``.

    ``quadratic`` is the paper: kappa = scale (1 - max(progress - u, 0)^2), full weight until
    the instance's own time u, then decay: diverse early, strict late.

    Args:
        rank_N: u, rank share within the pseudo-class, in (0, 1].
        progress: share of the segmenter's training done, in [0, 1].
        mode: ``none`` trusts all; ``classwise_cut`` drops the least reliable ``drop_share`` of each
            class for good; the ``global`` modes rank over all classes instead.
        scale: s, the weight of a fully trusted instance.
        global_rank_N: rank share over all classes; needed by the global modes.
    """
    if mode in ("global_cut", "quadratic_global"):
        if global_rank_N is None:
            raise ValueError(f"mode {mode!r} needs global_rank_N")
        rank_N = global_rank_N
    if mode == "none":
        return np.full(len(rank_N), scale)
    if mode in ("global_cut", "classwise_cut"):
        return np.where(rank_N > drop_share, scale, 0.0)
    return scale * (1.0 - np.maximum(progress - rank_N, 0.0) ** 2)
