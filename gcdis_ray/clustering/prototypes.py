"""Where prototypes begin: semi-supervised clustering of unit vectors, known classes in place.

Shape letters: M samples, D dimension, K classes, L known classes.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.kmeans import kmeans

_PRODUCTS = 1 << 27  # at a time: half a GB, and as much again for each step back through them


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

    Full-batch cross-entropy by Adam from ``start_KD``, on the device of the features. Centres alone
    would not do: features also vary in directions that no cluster owns. Rows go through in blocks,
    so that memory does not grow with rows times clusters; sums over several blocks differ in the
    last bits from those over one.

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
    blocks = [column.split(_block(start_KD)) for column in (features_MD, clusters_M, weight_M)]
    with torch.enable_grad():
        prototypes = start_KD.clone().requires_grad_()
        optimizer = torch.optim.Adam([prototypes], lr=lr)
        for _ in range(steps):
            unit_KD = F.normalize(prototypes, dim=1)
            seen_KD = unit_KD.detach().requires_grad_()  # gathers what each block has to say
            for features, clusters, weight in zip(*blocks, strict=True):
                logits = features @ seen_KD.T / temperature
                (weight * F.cross_entropy(logits, clusters, reduction="none")).sum().backward()
            optimizer.zero_grad()
            unit_KD.backward(seen_KD.grad)
            optimizer.step()
    return F.normalize(prototypes.detach(), dim=1)


def nearest_by_cosine(vectors_MD: Tensor, prototypes_KD: Tensor) -> Tensor:
    """Row (M,) of the prototype with the largest product, in blocks."""
    blocks = vectors_MD.split(_block(prototypes_KD))
    return torch.cat([(block @ prototypes_KD.T).argmax(dim=1) for block in blocks])


def _block(prototypes_KD: Tensor) -> int:
    """Rows whose products with all prototypes are held at a time."""
    return max(1, _PRODUCTS // len(prototypes_KD))
