"""Clustering accuracy and its relatives: by hand, and by what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.metrics.discovery import (
    agreement,
    clustering_accuracy,
    named_classes,
)

CLASS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
CLUSTER = np.array([0, 0, 3, 1, 2, 2, 2, 1])


def test_accuracy_by_hand_under_both_protocols() -> None:
    known = [0, 1]
    identity, mapping = clustering_accuracy(CLUSTER, CLASS, 3, known, {0: 0, 1: 1})
    assert mapping == {0: 0, 1: 1, 2: 2}
    assert identity == pytest.approx({"all": 5 / 8, "known": 3 / 5, "novel": 2 / 3})
    free, mapping = clustering_accuracy(1 - CLUSTER % 2 + CLUSTER // 2 * 2, CLASS, 3, known)
    assert mapping == {1: 0, 0: 1, 3: 2}
    assert free == pytest.approx(identity)


def test_known_identity_is_stricter_than_a_free_match() -> None:
    swapped = np.where(CLUSTER == 0, 1, np.where(CLUSTER == 1, 0, CLUSTER))
    strict, _ = clustering_accuracy(swapped, CLASS, 3, [0, 1], {0: 0, 1: 1})
    free, _ = clustering_accuracy(swapped, CLASS, 3, [0, 1])
    assert strict["all"] == 2 / 8
    assert free["all"] == 5 / 8


labelings = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
    )
)


@examples(80)
@given(labelings, st.permutations(range(6)), st.randoms(use_true_random=False))
def test_names_of_clusters_and_order_of_rows_do_not_matter(pair, names, random) -> None:
    cluster, truth = np.array(pair[0]), np.array(pair[1])
    before, _ = clustering_accuracy(cluster, truth, 5, [0, 1])
    order = list(range(len(cluster)))
    random.shuffle(order)
    renamed = np.array(names)[cluster]
    # equally good assignments may share the hits out differently: only the sum is unique
    after, _ = clustering_accuracy(renamed[order], truth[order], 5, [0, 1])
    assert after["all"] == pytest.approx(before["all"])
    assert agreement(renamed, truth[:]) == pytest.approx(agreement(cluster, truth))
    twice, _ = clustering_accuracy(np.tile(cluster, 2), np.tile(truth, 2), 5, [0, 1])
    assert twice["all"] == pytest.approx(before["all"])


@examples(50)
@given(labelings)
def test_perfect_clusters_score_one(pair) -> None:
    truth = np.array(pair[1])
    result, _ = clustering_accuracy(4 - truth, truth, 5, [0, 1])
    assert {v for v in result.values() if v is not None} == {1.0}
    assert agreement(4 - truth, truth)["nmi"] == pytest.approx(1)


def test_nothing_to_score_gives_null() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    result, mapping = clustering_accuracy(nothing, nothing, 3, [0], {0: 0})
    assert result == {"all": None, "known": None, "novel": None}
    assert mapping == {0: 0}
    assert agreement(nothing, nothing) == {"nmi": None, "ari": None}


def test_named_classes_leaves_unmapped_clusters_without_a_name() -> None:
    assert named_classes(np.array([0, 3, 1]), {1: 7}).tolist() == [-1, -1, 7]
