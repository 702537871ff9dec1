"""Where prototypes begin: semi-supervised clustering of unit vectors, known classes in place.

Shape letters: M samples, D dimension, K classes, L known classes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.kmeans import kmeans

_APART = 1000.0  # distance of two known classes: more than any average of cosines
_MOST_OUTLIERS = 200  # clusters beyond the wanted number that are looked at


def semi_supervised_kmeans(
    vectors_MD: Tensor,
    labels_M: Tensor,
    num_known: int,
    num_classes: int,
    generator: Generator,
    *,
    iterations: int = 50,
    restarts: int = 10,
    tolerance: float = 0.0,
) -> Tensor:
    """Centres of known classes then of clusters found among the unlabeled samples (Vaze et al.).

    :func:`gcdis_ray.clustering.kmeans.kmeans` on unit vectors, its centers scaled to length 1.

    Args:
        vectors_MD: unit rows.
        labels_M: known class of a labeled sample, -1 of an unlabeled one.
        iterations, restarts, tolerance: of each k-means, and how many of them, of which the best
            stays.

    Returns:
        (K, D) unit rows. A known class without a labeled sample gets no cluster and zeros, as do
        novel classes without any unlabeled sample; with fewer than there are classes, rows repeat.
    """
    told = labels_M >= 0
    present = torch.unique(labels_M[told])
    packed_M = torch.full_like(labels_M, -1)
    packed_M[told] = torch.searchsorted(present, labels_M[told])  # without gaps
    num_novel = min(num_classes - num_known, int((~told).sum()))
    found = kmeans(
        vectors_MD,
        len(present) + num_novel,
        generator,
        labels_N=packed_M,
        n_init=restarts,
        max_iterations=iterations,
        tolerance=tolerance,
    )
    centers_KD = vectors_MD.new_zeros(num_classes, vectors_MD.shape[1])
    centers_KD[present] = found.centers_KD[: len(present)]
    if num_novel:
        repeat = torch.arange(num_classes - num_known, device=present.device) % num_novel
        centers_KD[num_known:] = found.centers_KD[len(present) :][repeat]
    return F.normalize(centers_KD, dim=1)


def semi_supervised_linkage(
    vectors_MD: Tensor,
    labels_M: Tensor,
    num_known: int,
    num_classes: int,
    *,
    min_share: float = 0.0,
    labeled_stretch: float = 1.0,
) -> Tensor:
    """Cluster of every sample by average linkage of cosines, labels kept.

    k-means prefers clusters of equal mass: with a long tail it splits frequent classes and lumps
    rare ones. Average linkage does not care for mass. Samples of one known class start as one
    cluster, and two known classes never join.

    Time and memory grow with M squared: 6,000 samples take a second and 300 MB.

    Args:
        vectors_MD: unit rows.
        labels_M: known class of a labeled sample, -1 of an unlabeled one.
        min_share: clusters of fewer unlabeled samples than this share are outliers: they do not
            count as classes and join the nearest cluster that does.
        labeled_stretch: factor on distances between labeled and unlabeled samples. Training on
            labels draws labeled samples together; more than 1 keeps a look-alike novel class from
            joining them whole.

    Returns:
        (M,) known classes first, then novel clusters from large to small. Fewer than
        ``num_classes`` where there are too few samples.
    """
    vectors, labels = vectors_MD.cpu().double().numpy(), labels_M.cpu().numpy()
    if len(vectors) < 2:
        return torch.where(labels_M < 0, num_known, labels_M).clamp(max=num_classes - 1)
    distances = np.maximum(1 - vectors @ vectors.T, 0)
    told = np.flatnonzero(labels >= 0)
    same = labels[told][:, None] == labels[told][None]
    distances[np.ix_(told, told)] = np.where(same, 0.0, _APART)
    rest = np.flatnonzero(labels < 0)
    distances[np.ix_(told, rest)] *= labeled_stretch
    distances[np.ix_(rest, told)] *= labeled_stretch
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    smallest = min_share * np.count_nonzero(labels < 0)
    absent = num_known - len(np.unique(labels[told]))  # known classes without a labeled sample
    wanted = min(max(num_classes - absent, 1), len(vectors))
    for count in range(wanted, len(vectors) + 1):
        raw = fcluster(tree, count, "maxclust") - 1
        sizes = np.bincount(raw).astype(float)
        counted = sizes >= smallest
        counted[raw[told]] = True
        if counted.sum() >= wanted or count == wanted + _MOST_OUTLIERS:
            break
    order = np.argsort(-np.where(counted, sizes, 0), kind="stable")
    kept = [k for k in order if counted[k]]
    names = np.full(len(sizes), -1)
    names[raw[told]] = labels[told]
    free = [k for k in kept if names[k] < 0][: num_classes - num_known]
    names[free] = num_known + np.arange(len(free))
    means = np.stack([vectors[raw == k].mean(axis=0) for k in range(len(sizes))])
    named = np.flatnonzero(names >= 0)
    names[names < 0] = names[named[(means[names < 0] @ means[named].T).argmax(axis=1)]]
    clusters = np.where(labels >= 0, labels, names[raw])
    return torch.from_numpy(clusters).to(labels_M)


def fit_prototypes(
    features_MD: Tensor,
    clusters_M: Tensor,
    start_KD: Tensor,
    temperature: float,
    *,
    balanced: bool = False,
    steps: int = 100,
    lr: float = 0.02,
) -> Tensor:
    """Unit prototypes whose cosines with the features tell the given clusters apart.

    Full-batch cross-entropy by Adam from ``start_KD``. Centres alone would not do: features also
    vary in directions that no cluster owns.

    Args:
        features_MD: unit rows.
        clusters_M: cluster of each row.
        temperature: of the softmax over cosines.
        balanced: each cluster counts alike, not each row: rare clusters then take rows from
            frequent ones.
    """
    weight_M = features_MD.new_ones(len(clusters_M))
    if balanced:
        sizes_K = torch.bincount(clusters_M, minlength=len(start_KD)).clamp(min=1)
        weight_M = 1.0 / sizes_K[clusters_M].to(features_MD.dtype)
    weight_M = weight_M / weight_M.sum()
    with torch.enable_grad():
        prototypes = start_KD.clone().requires_grad_()
        optimizer = torch.optim.Adam([prototypes], lr=lr)
        for _ in range(steps):
            logits = features_MD @ F.normalize(prototypes, dim=1).T / temperature
            loss = (weight_M * F.cross_entropy(logits, clusters_M, reduction="none")).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return F.normalize(prototypes.detach(), dim=1)
