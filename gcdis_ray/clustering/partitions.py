"""Partitions of points that know some labels: the clusterers that discovery chooses between.

Every function gives the cluster of each row: known classes first, then novel clusters, below
``num_classes``. Labeled rows stay in the cluster of their class.

Shape letters: N rows, D dimensions, K clusters, L known classes, P partitions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.kmeans import kmeans, means, nearest
from gcdis_ray.clustering.linkage import label_nodes
from gcdis_ray.clustering.prototypes import semi_supervised_kmeans

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LEAST = 2  # unlabeled points that make a class


def linkage_clusters(
    points_ND: Floats,
    labels_N: Ints,
    weight_N: Floats,
    num_known: int,
    num_classes: int,
    stretches: Sequence[float],
) -> list[Ints]:
    """Semi-supervised average linkage, one partition for each stretch of distances between labeled
    and unlabeled points (:mod:`gcdis_ray.clustering.linkage`). A point alone is an outlier and no
    class: it joins the nearest cluster.

    Args:
        points_ND: unit rows, or means of as many such rows as ``weight_N`` says.
    """
    nodes = label_nodes(points_ND, labels_N, weight_N)
    found = []
    for tree_P4 in nodes.trees(stretches):
        cluster_N = labels_N.copy()
        cluster_N[labels_N < 0] = nodes.clusters(tree_P4, num_known, num_classes, _LEAST)
        found.append(cluster_N)
    return found


def named_kmeans_clusters(
    points_ND: Floats,
    labels_N: Ints,
    num_known: int,
    num_classes: int,
    seed: int,
    *,
    restarts: int = 3,
) -> Ints:
    """k-means that knows no label, its clusters named by :func:`name_clusters`: all that a user of
    plain k-means could do."""
    points, labels = torch.from_numpy(points_ND).float(), torch.from_numpy(labels_N)
    wanted = num_classes - (num_known - len(torch.unique(labels[labels >= 0])))
    found = kmeans(points, min(wanted, len(points)), Generator().manual_seed(seed), n_init=restarts)
    output_J = name_clusters(points, labels, F.normalize(found.centers_KD, dim=1), num_known)
    return np.where(labels_N >= 0, labels_N, output_J[found.cluster_N].numpy())


def name_clusters(
    points_ND: Tensor, labels_N: Tensor, centres_JD: Tensor, num_known: int
) -> Tensor:
    """Output of each of J clusters by the labeled rows in it: (J,) int64, all different.

    Known classes that have labels are matched to clusters one to one, so that most labeled rows
    are in the cluster of their class; among equal matchings the one whose clusters lie nearest to
    the classes' means. The other clusters are novel, in the order they have.

    Args:
        points_ND: unit rows, or means of such rows.
        labels_N: known class of each row below ``num_known``, -1 of an unlabeled one.
        centres_JD: unit rows.
    """
    told_N = labels_N >= 0
    points_TD, labels_T = points_ND[told_N], labels_N[told_N]
    output_J = torch.full((len(centres_JD),), -1, dtype=torch.int64)
    if len(points_TD):
        cluster_T = nearest(points_TD, centres_JD)[0]
        agree_JL = np.zeros((len(centres_JD), num_known))
        np.add.at(agree_JL, (cluster_T.numpy(), labels_T.numpy()), 1)
        mean_LD, size_L = means(points_TD, labels_T, num_known)
        near_JL = (centres_JD @ F.normalize(mean_LD, dim=1).T).double().numpy()
        present = np.flatnonzero(size_L.numpy())
        value_JL = agree_JL + near_JL / (2 * num_known + 1)  # all together, less than a row
        clusters, columns = linear_sum_assignment(value_JL[:, present], maximize=True)
        output_J[clusters] = torch.from_numpy(present[columns])
    novel = torch.nonzero(output_J < 0).flatten()
    output_J[novel] = num_known + torch.arange(len(novel))
    return output_J


def semi_supervised_kmeans_clusters(
    points_ND: Floats,
    labels_N: Ints,
    num_known: int,
    num_classes: int,
    seed: int,
    *,
    restarts: int = 3,
) -> Ints:
    """Semi-supervised k-means (Vaze et al. 2022)."""
    points, labels = torch.from_numpy(points_ND).float(), torch.from_numpy(labels_N)
    centres_KD = semi_supervised_kmeans(
        points, labels, num_known, num_classes, Generator().manual_seed(seed), restarts=restarts
    )
    cosine_NK = points @ centres_KD.T
    cosine_NK[:, ~centres_KD.any(dim=1)] = -torch.inf  # a class that nothing is known of
    return np.where(labels_N >= 0, labels_N, cosine_NK.argmax(dim=1).numpy())


def consensus(
    partitions_PN: Sequence[Ints],
    labels_N: Ints,
    weight_N: Floats,
    num_known: int,
    num_classes: int,
) -> Ints:
    """One partition of several: average linkage, where the distance of two rows is the share of
    partitions that tell them apart. Steadier than any one of them. Rows that none of them tells
    apart stay together, also where there are fewer than ``num_classes`` clusters then."""
    told_N = labels_N >= 0
    order = np.concatenate([np.flatnonzero(told_N), np.flatnonzero(~told_N)])
    nodes = label_nodes(np.zeros((len(labels_N), 1)), labels_N, weight_N)
    rows = np.concatenate([np.array(nodes.classes, dtype=np.int64), order[told_N.sum() :]])
    num_told = len(nodes.classes)
    distance_MM = np.zeros((len(rows), len(rows)))
    for cluster_N in partitions_PN:
        cluster_M = cluster_N[rows]
        cluster_M[:num_told] = nodes.classes
        distance_MM += cluster_M[:, None] != cluster_M[None, :]
    tree_P4 = nodes.tree(distance_MM / len(partitions_PN))
    told_apart = len(rows) - int(np.count_nonzero(tree_P4[:, 2] == 0))
    most = told_apart + num_known - num_told
    cluster_N = labels_N.copy()
    cluster_N[~told_N] = nodes.clusters(tree_P4, num_known, min(num_classes, most))
    return cluster_N
