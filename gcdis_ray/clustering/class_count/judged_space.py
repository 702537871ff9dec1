"""The space to count in: the one where labeled crops lie nearest to others of their class.

How much a principal component should count differs from backbone to backbone. Labels tell, before
anything is clustered: every labeled point ranks the others by their cosine, and a space is good
where those of its own class come first (mean average precision, classes counting alike).

Shape letters: N points, D dimensions, L labeled points, B of them at a time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gcdis_ray.clustering.spaces import scalings

PointSpace = Literal["principal", "half_whitened", "whitened"]
POWERS: dict[PointSpace, float] = {"principal": 0.0, "half_whitened": 0.5, "whitened": 1.0}
_MOST = 3_000  # labeled points that judge, as many of each class
_BLOCK = 500


def judged_space(embeddings_ND: Tensor, labels_N: Tensor, dims: int) -> PointSpace:
    """The space of largest :func:`precision`; half-whitened where labels cannot tell, which takes
    two classes, one of them with two labeled points."""
    size_C = torch.bincount(labels_N[labels_N >= 0])
    if int((size_C > 0).sum()) < 2 or int(size_C.max()) < 2:
        return "half_whitened"
    each = max(2, _MOST // len(size_C))
    rows_L = torch.cat([torch.nonzero(labels_N == c).flatten()[:each] for c in range(len(size_C))])
    rows_L = rows_L[:_MOST]
    spaces = scalings(embeddings_ND, dims, list(POWERS.values()))
    found = [precision(space.place(embeddings_ND[rows_L]), labels_N[rows_L]) for space in spaces]
    return list(POWERS)[int(np.argmax(found))]


def precision(points_LD: Tensor, labels_L: Tensor) -> float:
    """Mean average precision in [0, 1] of each point's ranking of all others, averaged over the
    classes of two points or more.

    Args:
        points_LD: unit rows.
        labels_L: the class of each, at least 0.
    """
    rank_R = torch.arange(1, len(points_LD), dtype=torch.float64)
    average_L = torch.zeros(len(points_LD), dtype=torch.float64)
    for start in range(0, len(points_LD), _BLOCK):
        block = torch.arange(start, min(start + _BLOCK, len(points_LD)))
        near_BL = points_LD[block] @ points_LD.T
        near_BL[torch.arange(len(block)), block] = -torch.inf  # itself, the last
        order_BR = near_BL.argsort(dim=1, descending=True, stable=True)[:, :-1]
        same_BR = (labels_L[order_BR] == labels_L[block, None]).double()
        precision_BR = same_BR.cumsum(dim=1) / rank_R
        average_L[block] = (precision_BR * same_BR).sum(1) / same_BR.sum(1).clamp(min=1)
    size_C = torch.bincount(labels_L)
    sum_C = torch.zeros(len(size_C), dtype=torch.float64).index_add_(0, labels_L, average_L)
    return float((sum_C / size_C)[size_C > 1].mean())
