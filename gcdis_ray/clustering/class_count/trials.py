"""What all estimators share: a family of clusterings with one parameter, judged on known classes.

An estimator names :class:`Job` s, independent of one another, and runs each into :class:`Trial` s:
a clustering of one draw of points at one value of its parameter (the number of clusters, a noise
level, a least size of a cluster), the number of classes it amounts to, and how much of every known
class it found again. :mod:`.choose` makes a count of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gcdis_ray.clustering.class_count.measures import silhouette
from gcdis_ray.clustering.class_count.points import Points
from gcdis_ray.clustering.kmeans import means

Labels = NDArray[np.int64]

HIDDEN_SHARE = 5  # one known class in five is hidden at a time


class Job(NamedTuple):
    """One unit of work: which draw, at which parameters. Equal jobs give equal trials."""

    draw: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """One clustering of one draw.

    Args:
        parameter: of the family.
        num_classes: that the clustering amounts to.
        recall: share of each known class's labeled points in the cluster matched to it, by class.
        weight: what the recall of each class counts, at least 0.
        silhouette, inertia: of the clustering, for people; see
            :class:`~gcdis_ray.clustering.class_count.measures.Measures`.
    """

    draw: int
    parameter: float
    num_classes: int
    recall: tuple[float, ...]
    weight: tuple[float, ...]
    silhouette: float
    inertia: float


class Estimator(Protocol):
    """A family of clusterings."""

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        """What is still to be tried, given what was; empty at the end."""
        ...

    def run(self, job: Job, points: Points, device: str = "cpu") -> list[Trial]:
        """Cluster a draw at every parameter of the job.

        Args: device: where k-means by nearest centers runs.
        """
        ...


def run_all(
    estimator: Estimator, run: Callable[[Sequence[Job]], Sequence[Sequence[Trial]]]
) -> list[Trial]:
    """All trials of an estimator.

    Args:
        run: runs a list of jobs, here or elsewhere, and gives their trials in the same order.
    """
    trials: list[Trial] = []
    while jobs := estimator.jobs(trials):
        for found in run(jobs):
            trials += found
    return trials


def recalls(
    cluster_N: Labels, label_N: Labels, num_known: int, balanced: bool = True
) -> tuple[float, ...]:
    """Per known class, the share of its labeled points that lie in the cluster matched to it.

    Clusters are matched one-to-one to classes so that as much as possible is right (Hungarian
    method).

    Args:
        cluster_N: cluster of every point, -1 for none.
        label_N: known class in 0..num_known-1, or -1.
        balanced: classes count alike in the matching, not by their points.

    Returns:
        a share in [0, 1] per known class; 0 for one without labels.
    """
    labeled = label_N >= 0
    size_C = np.bincount(label_N[labeled], minlength=num_known)
    mine = labeled & (cluster_N >= 0)
    count_KC = np.zeros((int(cluster_N.max(initial=0)) + 1, num_known))
    np.add.at(count_KC, (cluster_N[mine], label_N[mine]), 1)
    share_KC = count_KC / np.maximum(size_C, 1)
    rows, columns = linear_sum_assignment(share_KC if balanced else count_KC, maximize=True)
    found_C = np.zeros(num_known)
    found_C[columns] = share_KC[rows, columns]
    return tuple(found_C.tolist())


def judges(
    label_N: Labels, num_known: int, hidden: Sequence[int] = (), seen: float = 1.0
) -> tuple[float, ...]:
    """What the recall of every known class counts: 1 if hidden, ``seen`` if its labels were seen
    by what is judged (1 where nothing is hidden), 0 without labels."""
    present_C = np.bincount(label_N[label_N >= 0], minlength=num_known) > 0
    if not hidden:
        return tuple(present_C.astype(float).tolist())
    weight_C = np.where(np.isin(np.arange(num_known), hidden), 1.0, seen)
    return tuple((present_C * weight_C).tolist())


def diagnostics(points_ND: Tensor, cluster_N: Tensor) -> tuple[float, float]:
    """Silhouette and inertia per point of a clustering without empty clusters."""
    centers_KD, _ = means(points_ND, cluster_N, int(cluster_N.max()) + 1)
    inertia = float(((points_ND - centers_KD[cluster_N]) ** 2).sum(dtype=torch.float64))
    return silhouette(points_ND, centers_KD, cluster_N), inertia / len(points_ND)


def hidden_classes(classes: Sequence[int], draw: int, seed: int) -> list[int]:
    """Known classes whose labels a draw hides: each once in five draws (fewer if they are fewer).

    A single class is never hidden: nothing would be left to learn from.
    """
    if len(classes) < 2:
        return []
    num_folds = min(HIDDEN_SHARE, len(classes))
    cycle, fold = divmod(draw, num_folds)
    order = np.random.default_rng([seed, cycle]).permutation(list(classes)).tolist()
    return sorted(order[fold::num_folds])
