"""Instance-wise and class-wise contrastive losses of GCDIS, with a temperature per anchor.

Shape letters: N anchors, M keys (of the current batch, then of the queue).
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive_log_probabilities(
    similarities_NM: Tensor,
    temperature_N: Tensor,
    anchor_instances_N: Tensor,
    key_instances_M: Tensor,
    own_N: Tensor,
) -> Tensor:
    """log softmax over A_i of z_i . z'_j / tau_i; -inf outside A_i.

    A_i holds every key except other keys of anchor i's own instance (older views of it would be
    negatives that show the same object).

    Args:
        similarities_NM: z_i . z'_j of unit vectors.
        temperature_N: tau_i > 0.
        anchor_instances_N, key_instances_M: which crop each row shows.
        own_N: index into the keys of anchor i's positive z'_i.

    Returns:
        (N, M)
    """
    logits_NM = similarities_NM / temperature_N[:, None]
    stale_NM = anchor_instances_N[:, None] == key_instances_M[None, :]
    stale_NM = stale_NM.scatter(1, own_N[:, None], False)
    return torch.log_softmax(logits_NM.masked_fill(stale_NM, -torch.inf), dim=1)


def instance_contrastive_loss(log_probabilities_NM: Tensor, own_N: Tensor) -> Tensor:
    """L_u^rep: mean over anchors of -log p(own key), InfoNCE."""
    return -log_probabilities_NM.gather(1, own_N[:, None]).mean()


def class_contrastive_loss(
    log_probabilities_NM: Tensor, labels_N: Tensor, key_labels_M: Tensor, count: Tensor | float
) -> Tensor:
    """L_s^rep: sum over labeled anchors of -mean_{k in P_i} log p(k), over ``count``; SupCon.

    P_i are the keys in A_i with anchor i's label; its own key is one, so P_i is never empty.

    Args:
        labels_N, key_labels_M: class index, -1 without label.
        count: labeled anchors to average over, a fraction of one where few are shared by many
            parts of a step; 0 or no labeled anchor gives 0 with a gradient of zero.
    """
    positive_NM = (labels_N[:, None] == key_labels_M[None, :]) & (labels_N >= 0)[:, None]
    positive_NM &= log_probabilities_NM > -torch.inf
    terms_NM = torch.where(positive_NM, log_probabilities_NM, 0.0)
    terms_N = terms_NM.sum(dim=1) / positive_NM.sum(dim=1).clamp(min=1)
    total = -terms_N.sum()
    return total / torch.as_tensor(count, dtype=total.dtype, device=total.device).clamp(min=1e-6)
