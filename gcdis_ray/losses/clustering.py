"""Clustering and classification losses of GCDIS on the cosine classifier.

Shape letters: N crops, K clusters (known classes first).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sharpened_target(probabilities_NK: Tensor, mass_K: Tensor, balance: float = 1.0) -> Tensor:
    """Target p_bar_ik proportional to p_ik^2 / f_k^balance, rows summing to 1 (GCDIS, after DEC).

    Args:
        probabilities_NK: the momentum encoder's p.
        mass_K: f_k, the summed probability of each cluster; only ratios matter.
        balance: 1 is the paper; it pushes towards clusters of equal mass. 0 only sharpens.
    """
    weights_K = mass_K.clamp(min=1e-8) ** -balance
    raw_NK = probabilities_NK**2 * weights_K
    return raw_NK / raw_NK.sum(dim=1, keepdim=True)


def clustering_loss(
    target_NK: Tensor, cosines_NK: Tensor, temperature: float, weight_N: Tensor | float = 1.0
) -> Tensor:
    """L_u^cls: mean over crops of KL(target || softmax(cosines / temperature)).

    Args:
        target_NK: no gradient flows into it.
        weight_N: of each crop's term before the mean; 0 leaves it out.
    """
    log_q_NK = torch.log_softmax(cosines_NK / temperature, dim=1)
    entropy_N = torch.special.entr(target_NK.detach()).sum(dim=1)
    terms_N = -(target_NK.detach() * log_q_NK).sum(dim=1) - entropy_N
    return (weight_N * terms_N).mean()


def unlabeled_weights(labels_N: Tensor, num_labeled: Tensor | float) -> Tensor:
    """Weights (N,) that turn a mean over crops into one over the unlabeled crops of a step.

    Args:
        labels_N: class index, -1 without label.
        num_labeled: labeled crops of a part, as a mean over the parts of the step.
    """
    num_unlabeled = len(labels_N) - torch.as_tensor(num_labeled, device=labels_N.device)
    return (labels_N < 0) * (len(labels_N) / num_unlabeled.float().clamp(min=1e-6))


def classification_loss(
    cosines_NK: Tensor, labels_N: Tensor, temperature: float, count: Tensor | float
) -> Tensor:
    """L_s^cls: sum over labeled crops of -log q_{i, y_i}, over ``count``.

    Args:
        labels_N: class index, -1 without label.
        count: labeled crops to average over, a fraction of one where few are shared by many parts
            of a step; 0 or no labeled crop gives 0.
    """
    total = F.cross_entropy(cosines_NK / temperature, labels_N, ignore_index=-1, reduction="sum")
    return total / torch.as_tensor(count, dtype=total.dtype, device=total.device).clamp(min=1e-6)


def balance_loss(cosines_NK: Tensor, mass_K: Tensor, temperature: float) -> Tensor:
    """Mean-entropy regulariser (SimGCD), linearised at the running cluster mass.

    sum_k mean_i(q_ik) log(m_k), m the normalised mass: its gradient is that of -H(mean q) at
    m, so small batches of many classes pull as steadily as large ones. It is lowest when
    probability moves to rare clusters.

    Args:
        mass_K: only ratios matter. Divided by the shares w that clusters should have, it makes the
            gradient that of KL(mean q || w): lowest when probability moves to clusters that are
            rarer than wanted.
    """
    share_K = mass_K.clamp(min=1e-8) / mass_K.clamp(min=1e-8).sum()
    mean_K = torch.softmax(cosines_NK / temperature, dim=1).mean(dim=0)
    return (mean_K * share_K.log()).sum()
