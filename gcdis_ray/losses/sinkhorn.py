"""Pseudo-labels whose clusters have given sizes: entropic optimal transport.

Shape letters: N crops, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-300  # a mass that fp64 still divides by


@torch.no_grad()
def sinkhorn(
    logits_NK: Tensor,
    epsilon: float,
    iterations: int,
    share_K: Tensor | None = None,
    weight_N: Tensor | None = None,
) -> Tensor:
    """Soft clusters Q of crops that agree with the logits while clusters keep their sizes.

    Q maximises <Q, logits> + epsilon H(Q) where row n sums to its weight and column k to share_k of
    all weights (Cuturi, NeurIPS 2013; UNO, section 3.3, with equal shares). Sinkhorn and Knopp's
    iteration scales columns, then rows: after any number of them rows have their sums; columns have
    theirs in the limit.

    Args:
        logits_NK: finite, within 600 epsilon of each other; cosines are from epsilon 0.005 on.
        epsilon: above 0; the smaller, the harder the pseudo-labels.
        iterations: at least 1; 3 in UNO.
        share_K: of each cluster, not negative, scaled to sum 1; None: all alike. A cluster of share
            0 gets nothing.
        weight_N: of each crop, not negative; None: 1. A crop of weight 0 is not there.

    Returns:
        (N, K) in the logits' dtype; computed in fp64.
    """
    num, classes = logits_NK.shape
    if num == 0 or classes == 0:
        return logits_NK.clone()
    scores_NK = logits_NK.double() / epsilon
    kernel_NK = (scores_NK - scores_NK.max()).exp()
    weights_N = kernel_NK.new_ones(num) if weight_N is None else weight_N.to(kernel_NK)
    shares_K = kernel_NK.new_ones(classes) if share_K is None else share_K.to(kernel_NK)
    wanted_K = weights_N.sum() * shares_K / shares_K.sum()
    columns_K, rows_N = torch.ones_like(wanted_K), weights_N
    for _ in range(iterations):
        columns_K = wanted_K / (rows_N @ kernel_NK).clamp(min=_SMALLEST)
        rows_N = weights_N / (kernel_NK @ columns_K).clamp(min=_SMALLEST)
    return (rows_N[:, None] * kernel_NK * columns_K).to(logits_NK.dtype)
