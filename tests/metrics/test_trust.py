"""Probability, stability and reliability against right and wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.metrics.trust import (
    auroc,
    calibration_error,
    equal_count_bins,
    equal_width_bins,
    trust_scores,
)

labelings = st.lists(
    st.tuples(st.sampled_from([-3.0, 0.0, 0.25, 1e6, 1e7]), st.booleans()), max_size=40
)


def _arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in rows], float), np.array([r for _, r in rows], bool)


def test_calibration_by_hand() -> None:
    bins = equal_width_bins(
        np.array([0.55, 0.6, 0.95, 1.0]), np.array([True, False, True, True]), 10
    )
    assert [b["num_crops"] for b in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert bins[5]["mean"] == pytest.approx(0.575)
    assert bins[5]["accuracy"] == 0.5
    assert bins[0]["accuracy"] is None
    assert calibration_error(bins) == pytest.approx((0.075 + 0.025) / 2)
    assert calibration_error([]) is None


def test_equal_scores_are_never_parted() -> None:
    score = np.array([1.0] * 7 + [2.0, 3.0, 4.0])
    bins = equal_count_bins(score, score > 1, 5)
    assert sum(b["num_crops"] for b in bins) == 10
    assert bins[0]["num_crops"] >= 7
    same = equal_count_bins(np.full(4, 2.5), np.array([True, False, False, False]))
    assert [(b["num_crops"], b["accuracy"]) for b in same] == [(4, 0.25)]


@given(labelings)
def test_equal_count_bins_hold_every_crop_once_in_rising_order(rows) -> None:
    score, right = _arrays(rows)
    bins = equal_count_bins(score, right)
    assert sum(b["num_crops"] for b in bins) == len(rows)
    assert sum(b["num_crops"] * b["accuracy"] for b in bins) == pytest.approx(right.sum())
    means = [b["mean"] for b in bins]
    assert means == sorted(means)
    assert all(b["from"] <= b["mean"] * (1 + 1e-9) + 1e-9 for b in bins if b["mean"] > 0)


def test_distinct_scores_are_cut_into_equal_counts() -> None:
    score = np.random.default_rng(0).permutation(1000) ** 3.0
    bins = equal_count_bins(score, score > 0)
    assert len(bins) == 10
    assert {b["num_crops"] for b in bins} <= {99, 100, 101}


@given(labelings)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows) -> None:
    score, right = _arrays(rows)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[right] for b in score[~right]]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert auroc(score, right) == (None if expected is None else pytest.approx(expected))


def test_without_crops_every_number_is_missing_and_every_list_empty() -> None:
    empty = np.zeros(0)
    found = trust_scores(
        dict.fromkeys(("probability", "stability", "reliability"), empty), np.zeros(0, bool)
    )
    assert found["probability_bins"] == found["stability_bins"] == found["reliability_bins"] == []
    assert found["trust"]["accuracy"] is found["trust"]["calibration_error"] is None
    assert set(found["trust"]["auroc"].values()) == {None}


def test_equal_width_bins_are_closed_above() -> None:
    rows = equal_width_bins(np.array([0.1, 0.11, 1.0]), np.array([True, False, True]), 10)
    assert [r["num_crops"] for r in rows] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert rows[0]["accuracy"] == 1
    assert rows[1]["accuracy"] == 0
    assert rows[5]["accuracy"] is None


def test_labels_that_nobody_judged_have_their_probability_only() -> None:
    right = np.array([True, False])
    found = trust_scores({"probability": np.array([0.9, 0.4])}, right)
    assert found["stability_bins"] == found["reliability_bins"] == []
    assert sum(b["num_crops"] for b in found["probability_bins"]) == 2
    assert found["trust"]["auroc"] == {"probability": 1}
