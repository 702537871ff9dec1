"""Centres of classes among frozen embeddings: found once, then asked of any crop.

Shape letters: N crops, M of them looked at, D dimensions of the embeddings, C of the space that
centres lie in, K outputs, L known classes that the method is told of.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.clustering import spaces
from gcdis_ray.clustering.kmeans import kmeans
from gcdis_ray.clustering.partitions import name_clusters
from gcdis_ray.clustering.prototypes import semi_supervised_kmeans
from gcdis_ray.data.crops.crop_vectors import read_vectors
from gcdis_ray.errors import DataError
from gcdis_ray.methods.kmeans.config import Config
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.artifacts import Table

_LABELED = 20  # crops of each class that a draw contains at least, if there are so many


def fit_space(vectors_MD: Tensor, config: Config) -> spaces.Space:
    """Where vectors are compared, in float32."""
    if config.components is not None:
        space = spaces.principal(vectors_MD, config.components)
        if not config.centre:
            space = replace(space, mean_D=torch.zeros_like(space.mean_D))
    else:
        space = spaces.centred(vectors_MD) if config.centre else spaces.raw(vectors_MD)
    return space.to("cpu", torch.float32)


def find_centres(problem: Problem, embeddings: Table, config: Config) -> dict[str, Tensor]:
    """What :class:`NearestCentre` is made of.

    Returns:
        ``centres_KC``, unit rows, known classes first, zeros for an output that no crop is nearest
        to: a known class without a labeled crop, or one of more outputs than there are crops; and
        the tensors of the :class:`~gcdis_ray.clustering.spaces.Space`.

    Raises:
        DataError: there is no crop.
    """
    if not embeddings.num_rows:
        raise DataError("there is no crop to cluster", where="embeddings")
    labels_N = torch.from_numpy(embeddings.read(["class_index"])["class_index"].to_numpy().copy())
    labels_N = problem.told(labels_N.to(torch.int64))
    generator = Generator().manual_seed(problem.seed)
    rows_M = draw(labels_N, config.max_crops, generator)
    vectors_MD, labels_M = read_vectors(embeddings, rows_M), labels_N[rows_M]
    space = fit_space(vectors_MD, config)
    points_MC = space.place(vectors_MD)
    if config.algorithm == "semi_supervised":
        centres_KC = semi_supervised_kmeans(
            points_MC,
            labels_M,
            problem.num_told,
            problem.num_outputs,
            generator,
            iterations=config.max_iterations,
            restarts=config.n_init,
            tolerance=config.tolerance,
        )
    else:
        centres_KC = _plain(points_MC, labels_M, problem, config, generator)
    return {"centres_KC": centres_KC, **space.tensors()}


def draw(labels_N: Tensor, most: int, generator: Generator) -> Tensor:
    """Rising rows of at most ``most`` crops, at random, but some of each class that has labels.

    Args:
        labels_N: int64 class of each labeled crop, -1 of an unlabeled one.
    """
    if len(labels_N) <= most:
        return torch.arange(len(labels_N))
    order_N = torch.randperm(len(labels_N), generator=generator)
    label_N, by_label_N = labels_N[order_N].sort(stable=True)
    size_G = torch.unique_consecutive(label_N, return_counts=True)[1]
    start_N = (size_G.cumsum(0) - size_G).repeat_interleave(size_G)
    least = max(1, min(_LABELED, most // (2 * len(size_G))))
    first_N = torch.zeros(len(labels_N), dtype=torch.bool)
    first_N[by_label_N] = (label_N >= 0) & (torch.arange(len(labels_N)) - start_N < least)
    return torch.cat([order_N[first_N], order_N[~first_N]])[:most].sort().values


def _plain(
    points_MC: Tensor, labels_M: Tensor, problem: Problem, config: Config, generator: Generator
) -> Tensor:
    """Centres (K, C) of k-means that knows no label, those of known classes put first."""
    present = torch.unique(labels_M[labels_M >= 0])
    wanted = problem.num_outputs - (problem.num_told - len(present))
    found = kmeans(
        points_MC,
        min(wanted, len(points_MC)),
        generator,
        n_init=config.n_init,
        max_iterations=config.max_iterations,
        tolerance=config.tolerance,
    )
    centres_JC = F.normalize(found.centers_KD, dim=1)
    output_J = name_clusters(points_MC, labels_M, centres_JC, problem.num_told)
    centres_KC = centres_JC.new_zeros(problem.num_outputs, centres_JC.shape[1])
    centres_KC[output_J] = centres_JC
    return centres_KC
