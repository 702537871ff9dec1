"""Prototypes of the clusters that crops were placed in.

Shape letters: N crops, M of them looked at, D dimensions of the embeddings, K outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering import spaces
from gcdis_ray.clustering.prototypes import fit_prototypes
from gcdis_ray.data.crops.crop_vectors import read_vectors
from gcdis_ray.methods.linkage.config import Config
from gcdis_ray.methods.placing_points import draw_rows
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.artifacts import Table


def fit_to_placed(problem: Problem, embeddings: Table, config: Config) -> dict[str, Tensor]:
    """What :class:`gcdis_ray.methods.nearest_centre.NearestCentre` is made of.

    All dimensions are kept: some cluster may need any of them.

    Returns:
        ``centres_KC``, unit rows, zeros for an output that no crop was placed in; and the tensors
        of the space.
    """
    placed_N = problem.placed_N
    assert placed_N is not None, "crops were placed"
    some = np.unique(placed_N, return_index=True)[1]  # of every cluster
    others = np.setdiff1d(np.arange(len(placed_N)), some)
    drawn = draw_rows(others, max(config.max_crops - len(some), 0), problem.seed)
    rows_M = torch.cat([torch.from_numpy(some), drawn]).sort().values
    vectors_MD = read_vectors(embeddings, rows_M)
    space = spaces.centred(vectors_MD).to("cpu", torch.float32)
    points_MD, clusters_M = space.place(vectors_MD), torch.from_numpy(placed_N)[rows_M]
    sums_KD = points_MD.new_zeros(problem.num_outputs, points_MD.shape[1])
    sums_KD.index_add_(0, clusters_M, points_MD)
    used, clusters_M = torch.unique(clusters_M, return_inverse=True)
    fitted = fit_prototypes(
        points_MD,
        clusters_M,
        F.normalize(sums_KD[used], dim=1),
        config.temperature,
        steps=config.steps,
    )
    centres_KD = torch.zeros_like(sums_KD)
    centres_KD[used] = fitted
    return {"centres_KC": centres_KD, **space.tensors()}
