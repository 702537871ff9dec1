"""The points that classes are counted on: a draw of crops, as a few principal components.

Every estimator looks at the same draw. It is small whatever the data set, so that hundreds of
candidates can be tried, and it is made once from cached embeddings.

Shape letters: N points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from gcdis_ray.clustering.class_count.judged_space import POWERS, PointSpace, judged_space
from gcdis_ray.clustering.kmeans import Backend
from gcdis_ray.clustering.spaces import scaled
from gcdis_ray.errors import DataError

UNLABELED = 10_000  # drawn unless a number is given, or
UNLABELED_PER_CLASS = 30  # per known class, if that is more: classes of few crops must be seen


@dataclass(frozen=True)
class CountSettings:
    """How points are drawn and clustered.

    Args:
        dims: principal components that are kept.
        space: how much each of them counts, see :mod:`gcdis_ray.clustering.spaces`; None: yet to be
            :func:`settled`.
        max_labeled_per_class, max_unlabeled: points drawn at most. Labeled points beyond a few
            dozen per class only make the known classes heavier than the novel ones. Unlabeled
            ones, if None: UNLABELED, or UNLABELED_PER_CLASS per labeled class if that is more.
        n_init: starts per k-means run.
        max_iterations: of k-means.
        backend: nearest-center search of k-means.
    """

    dims: int = 128
    space: PointSpace | None = None
    max_labeled_per_class: int = 60
    max_unlabeled: int | None = None
    n_init: int = 2
    max_iterations: int = 30
    backend: Backend = "torch"


class Points(NamedTuple):
    """A draw: unit vectors (N, D) float32 and labels (N,) int64, the known class or -1."""

    points_ND: Tensor
    labels_N: Tensor


def draw(labels_N: Tensor, settings: CountSettings, seed: int) -> Tensor:
    """Rows that are drawn, ascending within each class: int64.

    Needs the labels only, so that a large table can be read for these rows alone.

    Raises:
        DataError: no labeled or no unlabeled point.
    """
    labeled = labels_N >= 0
    if not bool(labeled.any()) or bool(labeled.all()):
        which = "unlabeled" if bool(labeled.any()) else "labeled"
        raise DataError(
            f"the number of classes cannot be estimated without {which} crops",
            fix="give the number of novel classes",
        )
    generator = torch.Generator().manual_seed(seed)
    classes = torch.unique(labels_N).tolist()
    num_labeled = sum(label >= 0 for label in classes)
    unlabeled = settings.max_unlabeled or max(UNLABELED, UNLABELED_PER_CLASS * num_labeled)
    rows = []
    for label in classes:
        mine = torch.nonzero(labels_N == label).flatten()
        most = unlabeled if label < 0 else settings.max_labeled_per_class
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:most]].sort().values)
    return torch.cat(rows)


def prepare(embeddings_ND: Tensor, labels_N: Tensor, settings: CountSettings, seed: int) -> Points:
    """Draw points and place them where they are compared.

    Args:
        embeddings_ND: float32 of labeled and unlabeled points.
        labels_N: int64, known class or -1.
        seed: of the draw.

    Raises:
        DataError: no labeled or no unlabeled point.
    """
    rows = draw(labels_N, settings, seed)
    settings = settled(settings, embeddings_ND[rows], labels_N[rows])
    return Points(place(embeddings_ND[rows], settings), labels_N[rows])


def prepare_draws(
    read: Callable[[Tensor], Tensor],
    labels_N: Tensor,
    settings: CountSettings,
    seeds: Sequence[int],
) -> tuple[list[Points], PointSpace]:
    """A draw for each seed, all in one space, which is settled on the first.

    Args:
        read: embeddings of rows, which are asked for in one piece.
        labels_N: int64, known class or -1.

    Raises:
        DataError: no labeled or no unlabeled point.
    """
    draws, before_M = [], None
    for seed in seeds:
        rows_M = draw(labels_N, settings, seed)
        if before_M is None or not torch.equal(rows_M, before_M):
            vectors_MD, before_M = read(rows_M), rows_M
            settings = settled(settings, vectors_MD, labels_N[rows_M])
            draws.append(Points(place(vectors_MD, settings), labels_N[rows_M]))
        else:  # draws of a small set are the whole of it
            draws.append(draws[-1])
    assert settings.space is not None
    return draws, settings.space


def settled(settings: CountSettings, embeddings_ND: Tensor, labels_N: Tensor) -> CountSettings:
    """The settings with a space: theirs, or the one that labels find best.

    Args:
        embeddings_ND, labels_N: of a draw.
    """
    if settings.space is not None:
        return settings
    return replace(settings, space=judged_space(embeddings_ND, labels_N, settings.dims))


def place(embeddings_ND: Tensor, settings: CountSettings) -> Tensor:
    """Unit rows along the directions of most variance, fewer than ``dims`` if fewer have any."""
    assert settings.space is not None, "the space is settled"
    return scaled(embeddings_ND, settings.dims, POWERS[settings.space]).place(embeddings_ND)
