"""What one clustering into K clusters says about K.

Shape letters: N points, D dimensions, K clusters, C known classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gcdis_ray.clustering.class_count.nested_kmeans import nested_kmeans
from gcdis_ray.clustering.class_count.points import CountSettings


@dataclass(frozen=True)
class Measures:
    """Of one clustering.

    Args:
        accuracy: share of labeled points in the cluster matched to their class, in [0, 1].
        balanced_accuracy: the mean of that share over known classes.
        silhouette: simplified, in [-1, 1].
        inertia: mean squared distance to the own center, in [0, 4] for unit vectors.
    """

    accuracy: float
    balanced_accuracy: float
    silhouette: float
    inertia: float


def measure(
    points_ND: Tensor, labels_N: Tensor, num_clusters: int, settings: CountSettings, seed: int
) -> Measures:
    """Cluster all points by plain k-means, which sees no label, and compare with the labels.

    Args:
        points_ND, labels_N: as :func:`~gcdis_ray.clustering.class_count.points.prepare` gives
            them; at least one label.
        num_clusters: K, at most N.
        seed: of the starts of k-means; equal arguments give equal numbers.
    """
    (found,) = nested_kmeans(points_ND, [num_clusters], settings, 0, seed)
    labeled = labels_N >= 0
    clusters, labels = found.cluster_N[labeled], labels_N[labeled]
    return Measures(
        labeled_accuracy(clusters, labels, class_balanced=False),
        labeled_accuracy(clusters, labels, class_balanced=True),
        silhouette(points_ND, found.centers_KD, found.cluster_N),
        found.inertia / len(points_ND),
    )


def labeled_accuracy(cluster_N: Tensor, labels_N: Tensor, class_balanced: bool) -> float:
    """Share of labeled points in the cluster that was matched to their class, one-to-one.

    Args:
        cluster_N, labels_N: of labeled points only.
        class_balanced: mean over classes of the share within each class.
    """
    labels = torch.unique(labels_N, return_inverse=True)[1]
    num_classes, num_clusters = int(labels.max()) + 1, int(cluster_N.max()) + 1
    counts_KC = torch.bincount(
        cluster_N * num_classes + labels, minlength=num_clusters * num_classes
    ).view(num_clusters, num_classes).double().numpy()  # fmt: skip
    weight_C = counts_KC.sum(axis=0) * num_classes if class_balanced else counts_KC.sum()
    share_KC = counts_KC / weight_C
    return float(share_KC[linear_sum_assignment(share_KC, maximize=True)].sum())


def silhouette(points_ND: Tensor, centers_KD: Tensor, cluster_N: Tensor) -> float:
    """Mean of (b - a) / max(a, b): distance a to the own, b to the nearest other center.

    The simplified silhouette, in [-1, 1]; 0 for a single cluster.
    """
    if len(centers_KD) < 2:
        return 0.0
    total = 0.0
    step = rows_at_a_time(len(centers_KD))
    for start in range(0, len(points_ND), step):
        owner = cluster_N[start : start + step, None]
        distance_NK = torch.cdist(points_ND[start : start + step], centers_KD)
        own = distance_NK.gather(1, owner)[:, 0]
        other = distance_NK.scatter(1, owner, math.inf).min(dim=1).values
        largest = torch.maximum(own, other)
        value = torch.where(largest > 0, (other - own) / largest, torch.zeros_like(own))
        total += float(value.double().sum())
    return total / len(points_ND)


def rows_at_a_time(num_clusters: int) -> int:
    """Points whose costs of all K clusters are held at once: at most 2**24 numbers."""
    return max(1, min(10_000, (1 << 24) // num_clusters))
