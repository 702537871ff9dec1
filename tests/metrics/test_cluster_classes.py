"""Matching of clusters to classes, against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.cluster_classes import (
    count_matrix,
    count_pairs,
    dense,
    match_clusters,
)

counts_KC = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 20))
)


def _best_total(counts: np.ndarray, fixed: dict[int, int]) -> int:
    rows = [k for k in range(counts.shape[0]) if k not in fixed]
    columns = [c for c in range(counts.shape[1]) if c not in fixed.values()]
    kept = sum(int(counts[k, c]) for k, c in fixed.items())
    if len(rows) > len(columns):
        counts, rows, columns = counts.T, columns, rows
    best = max(
        (
            sum(int(counts[r, c]) for r, c in zip(rows, chosen, strict=True))
            for chosen in permutations(columns, len(rows))
        ),
        default=0,
    )
    return kept + best


@examples(500)
@given(counts_KC, st.integers(0, 6), st.sampled_from(["novel_only", "all"]))
def test_no_other_assignment_agrees_on_more_crops(
    counts: np.ndarray, num_known: int, scope: str
) -> None:
    fixed = {k: k for k in range(min(num_known, *counts.shape))}
    mapping = match_clusters(counts, fixed, scope)  # pyright: ignore[reportArgumentType]
    assert len(set(mapping.values())) == len(mapping)
    kept = fixed if scope == "novel_only" else {}
    assert kept.items() <= mapping.items()
    assert sum(counts[k, c] for k, c in mapping.items()) == _best_total(counts, kept)


def test_a_cluster_without_agreement_stands_for_nothing() -> None:
    counts = np.array([[5, 0], [0, 0], [4, 0]])
    assert match_clusters(counts, {}, "all") == {0: 0}


@examples(200)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40))
def test_count_matrix_counts(pairs: list[tuple[int, int]]) -> None:
    cluster = np.array([k for k, _ in pairs], dtype=np.int64)
    truth = np.array([c for _, c in pairs], dtype=np.int64)
    counts = count_matrix(cluster, truth, 5, 4)
    twice = dense(count_pairs(cluster, truth, 5, 4, np.full(len(pairs), 2)))
    for k in range(5):
        for c in range(4):
            assert counts[k, c] == pairs.count((k, c))
            assert twice[k, c] == 2 * counts[k, c]


def test_more_clusters_than_can_be_matched_are_refused() -> None:
    none = np.zeros(0, np.int64)
    sparse = count_pairs(none, none, 100_000, 4000)
    with pytest.raises(DataError, match="100000 clusters x 4000 classes") as refused:
        dense(sparse)
    assert "at most 67108" in str(refused.value)
