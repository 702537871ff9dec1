"""Where prototypes begin: semi-supervised clustering of unit vectors, known classes in place.

Shape letters: M samples, D dimension, K classes, L known classes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def semi_supervised_kmeans(
    vectors_MD: Tensor,
    labels_M: Tensor,
    num_known: int,
    num_classes: int,
    generator: Generator,
    *,
    iterations: int = 50,
    restarts: int = 10,
) -> Tensor:
    """Centres of known classes then of clusters found among the unlabeled samples (Vaze et al.).

    Known centres start at the mean of their labeled samples, novel ones by k-means++ among the
    unlabeled; labeled samples never move; similarity is the cosine. The start with the largest
    summed similarity of unlabeled samples wins.

    Args:
        vectors_MD: unit rows.
        labels_M: known class of a labeled sample, -1 of an unlabeled one.

    Returns:
        (K, D) unit rows. With fewer unlabeled samples than novel classes, samples repeat.
    """
    unlabeled = vectors_MD[labels_M < 0]
    labeled, classes = vectors_MD[labels_M >= 0], labels_M[labels_M >= 0]
    anchor_KD = vectors_MD.new_zeros(num_classes, vectors_MD.shape[1])
    anchor_KD.index_add_(0, classes, labeled)  # summed labeled vectors, zero for novel classes
    best, best_score = anchor_KD, -float("inf")
    if len(unlabeled) == 0:
        return F.normalize(anchor_KD, dim=1)
    for _ in range(restarts):
        centers = _start(
            unlabeled, F.normalize(anchor_KD[:num_known], dim=1), num_classes, generator
        )
        assigned = torch.full_like(labels_M[labels_M < 0], -1)
        for _ in range(iterations):
            nearest = (unlabeled @ centers.T).argmax(dim=1)
            if torch.equal(nearest, assigned):
                break
            assigned = nearest
            sums = anchor_KD.index_add(0, assigned, unlabeled)
            empty = sums.norm(dim=1) < 1e-12
            centers = torch.where(empty[:, None], centers, F.normalize(sums, dim=1))
        score = float((unlabeled @ centers.T).max(dim=1).values.sum())
        if score > best_score:
            best, best_score = centers, score
    return best


def _start(unlabeled: Tensor, known_LD: Tensor, num_classes: int, generator: Generator) -> Tensor:
    """k-means++ from the known centres on: each new one is drawn by squared distance."""
    centers = list(known_LD)
    if centers:
        distance = 2 - 2 * (unlabeled @ known_LD.T).max(dim=1).values
    else:
        distance = torch.ones(len(unlabeled), device=unlabeled.device)
    for _ in range(num_classes - len(known_LD)):
        weight = distance.clamp(min=0).double().cumsum(0)
        draw = (
            torch.rand(1, generator=generator, dtype=torch.float64).to(weight.device) * weight[-1]
        )
        index = int(torch.searchsorted(weight, draw).clamp(max=len(unlabeled) - 1))
        centers.append(unlabeled[index])
        distance = torch.minimum(distance, 2 - 2 * (unlabeled @ unlabeled[index]))
    return torch.stack(centers)


def refine_by_mixture(
    vectors_MD: Tensor,
    labels_M: Tensor,
    centers_KD: Tensor,
    concentration: float,
    *,
    iterations: int = 30,
) -> Tensor:
    """Cluster of every sample under a mixture of von Mises-Fisher distributions.

    k-means prefers clusters of equal mass: with a long tail it splits frequent classes and lumps
    rare ones. A mixture learns how frequent each cluster is among the unlabeled samples, and
    samples are shared between clusters. Labeled samples keep their class.

    Args:
        vectors_MD: unit rows.
        labels_M: known class of a labeled sample, -1 of an unlabeled one.
        centers_KD: start, known classes first.
        concentration: kappa, common to all clusters; larger comes closer to k-means.

    Returns:
        (M,) cluster in 0..K-1.
    """
    num_classes, free_M = len(centers_KD), labels_M < 0
    given_MK = F.one_hot(labels_M.clamp(min=0), num_classes).to(vectors_MD.dtype)
    log_share_K = torch.zeros(num_classes, device=vectors_MD.device, dtype=vectors_MD.dtype)
    for _ in range(iterations):
        log_p_MK = concentration * vectors_MD @ centers_KD.T + log_share_K
        part_MK = torch.where(free_M[:, None], torch.softmax(log_p_MK, dim=1), given_MK)
        centers_KD = F.normalize(part_MK.T @ vectors_MD, dim=1)
        if bool(free_M.any()):
            log_share_K = part_MK[free_M].mean(dim=0).clamp(min=1e-6).log()
    scores_MK = concentration * vectors_MD @ centers_KD.T + log_share_K
    return torch.where(free_M, scores_MK.argmax(dim=1), labels_M)


def fit_prototypes(
    features_MD: Tensor,
    clusters_M: Tensor,
    start_KD: Tensor,
    temperature: float,
    *,
    steps: int = 100,
    lr: float = 0.02,
) -> Tensor:
    """Unit prototypes whose cosines with the features tell the given clusters apart.

    Full-batch cross-entropy by Adam from ``start_KD``, each cluster counting alike. Centres
    alone would not do: features also vary in directions that no cluster owns.

    Args:
        features_MD: unit rows.
        clusters_M: cluster of each row.
        temperature: of the softmax over cosines.
    """
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
