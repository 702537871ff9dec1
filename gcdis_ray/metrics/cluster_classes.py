"""Which class a cluster stands for. Shape letters: K clusters, C classes, N crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array

from gcdis_ray.errors import DataError

MAX_CELLS = 1 << 28  # of clusters x classes; 5,000 x 4,000 are 2e7 and take a second

Scope = Literal["novel_only", "all"]


def count_pairs(
    cluster_N: NDArray[np.integer],
    class_N: NDArray[np.integer],
    num_clusters: int,
    num_classes: int,
    count_N: NDArray[np.integer] | None = None,
) -> csr_array:
    """How many of the N crops of each class fell into each cluster, without the zeros.

    Args:
        cluster_N: cluster ids in [0, num_clusters).
        class_N: classes in [0, num_classes).
        count_N: how often each pair was seen, once if not given.

    Returns:
        (K, C) int32, classes of a cluster by rising column.
    """
    value = np.ones(len(cluster_N), np.int32) if count_N is None else count_N.astype(np.int32)
    pairs = coo_array((value, (cluster_N, class_N)), shape=(num_clusters, num_classes))
    counts = pairs.tocsr()
    counts.sum_duplicates()
    return counts


def dense(counts_KC: csr_array) -> NDArray[np.int32]:
    """The same with the zeros, for an assignment.

    Raises:
        DataError: it would take more than a gigabyte.
    """
    num_clusters, num_classes = counts_KC.shape  # pyright: ignore[reportGeneralTypeIssues]
    if num_clusters * num_classes > MAX_CELLS:
        raise DataError(
            f"{num_clusters} clusters x {num_classes} classes are too many to match",
            fix=f"discover fewer classes: at most {MAX_CELLS // num_classes} for this ground truth",
        )
    return counts_KC.toarray()


def count_matrix(
    cluster_N: NDArray[np.integer],
    class_N: NDArray[np.integer],
    num_clusters: int,
    num_classes: int,
) -> NDArray[np.int32]:
    """:func:`count_pairs` of N crops, made dense: (K, C) int32."""
    return dense(count_pairs(cluster_N, class_N, num_clusters, num_classes))


def match_clusters(
    counts_KC: NDArray[np.integer], fixed: Mapping[int, int], scope: Scope = "novel_only"
) -> dict[int, int]:
    """One-to-one map from clusters to classes with the most crops in agreement.

    Args:
        counts_KC: from :func:`count_matrix`.
        fixed: known clusters (rows) and their classes (columns).
        scope: ``novel_only`` keeps ``fixed`` and solves one assignment over the other rows and
            columns; ``all`` ignores ``fixed`` and solves over everything.

    Returns:
        cluster -> class. With fewer classes than clusters some clusters stand for nothing and are
        absent; so is a cluster that shares no crop with the class left to it.
    """
    num_clusters, num_classes = counts_KC.shape
    mapping = dict(fixed) if scope == "novel_only" else {}
    rows = np.array([k for k in range(num_clusters) if k not in mapping], dtype=np.int64)
    taken = set(mapping.values())
    columns = np.array([c for c in range(num_classes) if c not in taken], dtype=np.int64)
    chosen = linear_sum_assignment(counts_KC[np.ix_(rows, columns)], maximize=True)
    for row, column in zip(*chosen, strict=True):
        cluster, name = int(rows[row]), int(columns[column])
        if counts_KC[cluster, name] > 0:
            mapping[cluster] = name
    return mapping
