"""Pseudo-labels whose clusters have given sizes: entropic optimal transport.

Shape letters: N crops, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-300  # a mass that fp64 still divides by


@torch.no_grad()
def sinkhorn(
    logits_NK: Tensor, epsilon: float, iterations: int, share_K: Tensor | None = None
) -> Tensor:
    """Soft clusters Q of crops that agree with the logits while clusters keep their sizes.

    Q maximises <Q, logits> + epsilon H(Q) where every row sums to 1 and column k to N share_k
    (Cuturi, NeurIPS 2013; UNO, section 3.3, with equal shares). Sinkhorn and Knopp's iteration
    scales columns, then rows: after any number of them rows sum to 1; columns do in the limit.

    Args:
        logits_NK: finite, within 600 epsilon of each other; cosines are from epsilon 0.005 on.
        epsilon: above 0; the smaller, the harder the pseudo-labels.
        iterations: at least 1; 3 in UNO.
        share_K: of each cluster, not negative, scaled to sum 1; None: all alike. A cluster of share
            0 gets nothing.

    Returns:
        (N, K) in the logits' dtype; computed in fp64.
    """
    num, classes = logits_NK.shape
    if num == 0:
        return logits_NK.clone()
    scores_NK = logits_NK.double() / epsilon
    kernel_NK = (scores_NK - scores_NK.max()).exp()
    if share_K is None:
        share_K = kernel_NK.new_full((classes,), 1 / classes)
    wanted_K = num * share_K.to(kernel_NK) / share_K.double().sum()
    columns_K, rows_N = torch.ones_like(wanted_K), kernel_NK.new_ones(num)
    for _ in range(iterations):
        columns_K = wanted_K / (rows_N @ kernel_NK).clamp(min=_SMALLEST)
        rows_N = 1 / (kernel_NK @ columns_K).clamp(min=_SMALLEST)
    return (rows_N[:, None] * kernel_NK * columns_K).to(logits_NK.dtype)
