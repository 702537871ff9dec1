"""Is trust well placed? Right and wrong labels against a number that claims to tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def trust_scores(scores: Mapping[str, Floats], right_N: NDArray[np.bool_]) -> dict[str, Any]:
    """All numbers of this module, and the bins of reliability, for pseudo-labels of known truth.

    Args:
        scores: ``probability`` and, if labels were judged, ``stability`` and ``reliability``, each
            of shape (N,).
        right_N: whether the label is right.

    Returns:
        ``probability_bins``, ``stability_bins``, ``reliability_bins`` (empty without crops or
        score), and ``trust`` with ``accuracy``, ``calibration_error`` and ``auroc`` by score.
    """
    there = len(right_N) > 0
    shares = {
        name: equal_width_bins(scores[name], right_N) if there and name in scores else []
        for name in ("reliability", "probability")
    }
    judged = scores.get("stability", np.zeros(0))
    return {
        "reliability_bins": shares["reliability"],
        "probability_bins": shares["probability"],
        "stability_bins": equal_count_bins(judged, right_N),
        "trust": {
            "accuracy": float(right_N.mean()) if there else None,
            "calibration_error": calibration_error(shares["probability"]),
            "auroc": {name: auroc(values, right_N) for name, values in scores.items()},
        },
    }


def equal_width_bins(
    score_N: Floats, right_N: NDArray[np.bool_], num_bins: int = 10
) -> list[dict[str, Any]]:
    """Share of right labels per equal slice of a score; of probability: the reliability diagram.

    Args:
        score_N: in [0, 1]; a slice holds its upper end.

    Returns:
        a row per slice: ``from``, ``to``, ``num_crops``, and ``mean`` (of the score) and
        ``accuracy``, both None in an empty slice.
    """
    index = np.clip(np.ceil(score_N * num_bins).astype(int) - 1, 0, num_bins - 1)
    edges = np.arange(num_bins + 1) / num_bins
    return _rows(index, edges, score_N, right_N)


def equal_count_bins(
    score_N: Floats, right_N: NDArray[np.bool_], num_bins: int = 10
) -> list[dict[str, Any]]:
    """Share of right labels per slice of about as many crops each, for scores of any range.

    Returns:
        rows as of :func:`equal_width_bins`, by rising score; fewer than ``num_bins`` where equal
        scores span several slices, because equal scores are never parted.
    """
    if not len(score_N):
        return []
    edges = np.unique(np.quantile(score_N, np.linspace(0, 1, num_bins + 1), method="lower"))
    index = np.clip(np.searchsorted(edges, score_N, side="left") - 1, 0, max(len(edges) - 2, 0))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    return [row for row in _rows(index, edges, score_N, right_N) if row["num_crops"]]


def _rows(
    index_N: NDArray[np.integer], edges: Floats, score_N: Floats, right_N: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    rows = []
    for b in range(len(edges) - 1):
        inside = index_N == b
        there = bool(inside.any())
        rows.append(
            {
                "from": float(edges[b]),
                "to": float(edges[b + 1]),
                "num_crops": int(inside.sum()),
                "mean": float(score_N[inside].mean()) if there else None,
                "accuracy": float(right_N[inside].mean()) if there else None,
            }
        )
    return rows


def calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Expected calibration error: sum over slices of n_b / N |accuracy_b - probability_b|.

    Source: Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".

    Args:
        bins: of :func:`equal_width_bins`.

    Returns:
        in [0, 1], None without crops.
    """
    filled = [row for row in bins if row["num_crops"]]
    total = sum(row["num_crops"] for row in filled)
    if not total:
        return None
    return sum(row["num_crops"] * abs(row["accuracy"] - row["mean"]) for row in filled) / total


def auroc(score_N: Floats, right_N: NDArray[np.bool_]) -> float | None:
    """Chance that a right label has a higher score than a wrong one, ties counted half.

    Returns:
        area under the ROC curve in [0, 1], 0.5 for a score that says nothing; None where all
        labels are right or all are wrong.
    """
    from scipy.stats import rankdata

    num_right = int(right_N.sum())
    num_wrong = len(right_N) - num_right
    if not num_right or not num_wrong:
        return None
    above = rankdata(score_N)[right_N].sum() - num_right * (num_right + 1) / 2
    return float(above / (num_right * num_wrong))
