"""How well clusters agree with true classes: accuracy, NMI, ARI, tables of classes and clusters.

Two protocols, always named beside the number:

- ``known_identity``: an output that was trained on known class c stands for c; only the other
  clusters are matched, to novel classes only, by one Hungarian assignment.
- ``hungarian_all``: one Hungarian assignment over all clusters and classes, the usual one of
  generalized category discovery and the only one for k-means, whose clusters have no identity.

Known and novel accuracy are shares of the crops whose *true* class is known or novel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.metrics.cluster_classes import count_matrix, match_clusters

Ints = NDArray[np.integer]
PROTOCOLS = {
    "known_identity": "known outputs stand for their own class; Hungarian over discovered "
    "clusters x novel classes",
    "hungarian_all": "one Hungarian assignment over all clusters x all classes",
}
NOTHING: dict[str, float | None] = {"all": None, "known": None, "novel": None}


def accuracy(
    cluster_N: Ints, class_N: Ints, mapping: Mapping[int, int], known: Collection[int]
) -> dict[str, float | None]:
    """Share of crops whose cluster stands for their true class.

    Args:
        cluster_N: cluster ids, -1 for a crop in none, which is wrong.
        class_N: true classes >= 0.
        mapping: cluster -> class; crops of unmapped clusters are wrong.
        known: the known classes.

    Returns:
        ``all``, ``known``, ``novel``, each in [0, 1], None where there is no crop.
    """
    named = named_classes(cluster_N, mapping)
    right = named == class_N
    is_known = np.isin(class_N, list(known))
    return {
        part: float(right[keep].mean()) if keep.any() else None
        for part, keep in (
            ("all", np.ones_like(is_known)),
            ("known", is_known),
            ("novel", ~is_known),
        )
    }


def named_classes(cluster_N: Ints, mapping: Mapping[int, int]) -> NDArray[np.int64]:
    """The class each cluster id stands for, -1 for none; -1 stands for none."""
    size = max([*mapping, int(cluster_N.max(initial=-1))], default=-1) + 1
    table = np.full(size + 1, -1, dtype=np.int64)
    for cluster, name in mapping.items():
        table[cluster] = name
    return table[cluster_N]


def clustering_accuracy(
    cluster_N: Ints,
    class_N: Ints,
    num_classes: int,
    known: Collection[int],
    fixed: Mapping[int, int] | None = None,
) -> tuple[dict[str, float | None], dict[int, int]]:
    """Accuracy under ``known_identity`` if ``fixed`` is given, under ``hungarian_all`` if not.

    Args:
        fixed: known cluster -> its class.

    Returns:
        accuracy as of :func:`accuracy`, and the map cluster -> class that it used.
    """
    num_clusters = max([*(fixed or ()), int(cluster_N.max(initial=-1))], default=-1) + 1
    sorted_N = cluster_N >= 0
    counts = count_matrix(cluster_N[sorted_N], class_N[sorted_N], num_clusters, num_classes)
    mapping = match_clusters(counts, fixed or {}, "all" if fixed is None else "novel_only")
    return accuracy(cluster_N, class_N, mapping, known), mapping


def agreement(cluster_N: Ints, class_N: Ints) -> dict[str, float | None]:
    """``nmi`` in [0, 1] (arithmetic mean of entropies) and ``ari`` in [-0.5, 1]; both free of any
    matching and of the names of clusters."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if not len(class_N):
        return {"nmi": None, "ari": None}
    return {
        "nmi": float(normalized_mutual_info_score(class_N, cluster_N)),
        "ari": float(adjusted_rand_score(class_N, cluster_N)),
    }
