"""Swapped prediction: what one view of a crop is said to be, the other has to say.

Shape letters: V views, N crops, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cross_entropy(
    target_NK: Tensor, cosines_NK: Tensor, temperature: float, weight_N: Tensor | float = 1.0
) -> Tensor:
    """Mean over crops of -sum_k target_k log softmax(cosines / temperature)_k.

    Args:
        target_NK: no gradient flows into it; a row of zeros leaves its crop out.
        weight_N: of each crop's term before the mean.
    """
    log_q_NK = torch.log_softmax(cosines_NK / temperature, dim=1)
    return -(weight_N * (target_NK.detach() * log_q_NK).sum(dim=1)).mean()


def swapped_prediction_loss(
    target_VNK: Tensor, cosines_VNK: Tensor, temperature: float, weight_N: Tensor | float = 1.0
) -> Tensor:
    """Mean of :func:`soft_cross_entropy` over all pairs of different views, the target from one and
    the prediction from the other: SwAV's and UNO's loss on pseudo-labels, SimGCD's
    self-distillation on sharpened outputs.

    Args:
        target_VNK, cosines_VNK: of at least two views.
        weight_N: of each crop.
    """
    views = range(len(cosines_VNK))
    terms = [
        soft_cross_entropy(target_VNK[told], cosines_VNK[asked], temperature, weight_N)
        for told in views
        for asked in views
        if told != asked
    ]
    return torch.stack(terms).mean()
