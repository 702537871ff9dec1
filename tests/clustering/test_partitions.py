"""Partitions that know some labels, and the one that several agree on."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from gcdis_ray.clustering.partitions import (
    consensus,
    linkage_clusters,
    named_kmeans_clusters,
    semi_supervised_kmeans_clusters,
)

NUM_KNOWN, CLASSES, PER_CLASS = 2, 5, 20
BLOB = np.repeat(np.arange(CLASSES), PER_CLASS)
LABELS = np.where((BLOB < NUM_KNOWN) & (np.arange(len(BLOB)) % 2 == 0), BLOB, -1)


def points() -> np.ndarray:
    found = np.eye(CLASSES, 8)[BLOB] + 0.1 * np.random.default_rng(0).normal(size=(len(BLOB), 8))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def check(cluster: np.ndarray) -> None:
    np.testing.assert_array_equal(cluster[BLOB < NUM_KNOWN], BLOB[BLOB < NUM_KNOWN])
    novel = [set(cluster[blob == BLOB].tolist()) for blob in range(NUM_KNOWN, CLASSES)]
    assert set.union(*novel) == set(range(NUM_KNOWN, CLASSES))
    assert all(len(one) == 1 for one in novel)


@pytest.mark.parametrize("cluster", [named_kmeans_clusters, semi_supervised_kmeans_clusters])
def test_kmeans_finds_clear_classes_and_keeps_known_ones_first(cluster):
    check(cluster(points(), LABELS, NUM_KNOWN, CLASSES, seed=0))


def test_linkage_finds_them_at_every_stretch():
    for found in linkage_clusters(
        points(), LABELS, np.ones(len(BLOB)), NUM_KNOWN, CLASSES, [0.8, 1.0, 1.3]
    ):
        check(found)


def test_a_point_alone_is_no_class():
    strays = -np.eye(8)[[6, 7]]
    rows = np.concatenate([points(), strays])
    labels = np.concatenate([LABELS, [-1, -1]])
    (found,) = linkage_clusters(rows, labels, np.ones(len(rows)), NUM_KNOWN, CLASSES, [1.0])
    check(found[:-2])
    assert (found[-2:] < CLASSES).all()


@examples(40)
@example(1, 1482776)  # one cluster is empty
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_consensus_of_equal_partitions_is_that_partition(times, seed):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(30) < 0.3, rng.integers(0, 2, size=30), -1)
    labels[:2] = 0, 1
    one = np.where(labels >= 0, labels, rng.integers(0, 5, size=30))
    found = consensus([one] * times, labels, np.ones(30), 2, 5)
    np.testing.assert_array_equal(found[one < 2], one[one < 2])
    pairs = {(int(a), int(b)) for a, b in zip(one, found, strict=True)}
    assert len(pairs) == len(set(one.tolist()))


def test_consensus_joins_nothing_that_no_partition_joins():
    """Two split X, two split Y: the distances are equal, and so many clusters are wanted that none
    of the halves of both can stay apart."""
    halves = np.repeat(np.arange(4), 5)  # X is 0 and 1, Y is 2 and 3
    split_x, split_y = np.array([2, 3, 4, 4]), np.array([2, 2, 3, 4])
    labels = np.concatenate([[0, 1], np.full(20, -1)])
    partitions = [
        np.concatenate([[0, 1], names[halves]]) for names in (split_x, split_x, split_y, split_y)
    ]
    found = consensus(partitions, labels, np.ones(22), 2, 5)[2:]
    across = {(int(a), int(b)) for a in found[halves < 2] for b in found[halves > 1]}
    assert all(a != b for a, b in across)
