"""What is new: crops that no class at hand is like, and the classes that they make.

A crop is as far from all classes as the mean distance to the three nearest crops of any of them.
How far is too far, crops of these classes tell: each class is withheld in turn, and its crops,
which then are of a class that nobody knows, are told from the same crops with their class in place,
each left out itself (the pseudo-novel hold-out). The threshold has the largest balanced accuracy.

Points lie in the space of the frozen embeddings, minus their mean. What was trained on the classes
at hand, or fitted to them, as whitening is, holds them apart better than classes to come, so that a
threshold found there is too large (docs/continue.md has figures).

Candidates are joined by average linkage, up to the height at which the classes at hand are found
again best. A cluster is a class if it is large enough and most of its crops lie nearer to one
another than to any class at hand: odd crops of a class, which are candidates as well, do not.

Shape letters: M points that are asked about, K points of classes at hand, N candidates, C
dimensions, J neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.clustering.linkage import average_linkage, cut
from gcdis_ray.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEIGHBOURS = 3
_PRODUCTS = 1 << 24  # of a block of points with all others
_ASKED = 10_000  # points that the threshold is found on
_JOINED = 3_000  # points that the height is found on
_JOINED_PER_CLASS = 40
_HEIGHTS = 60  # that are tried, from the 30th percentile of merges on
_LOWEST = 0.3
_LEAST = 3  # points of a class that counts in the choice of a height
_SEED = 5


def neighbours(
    points_MC: Tensor,
    others_KC: Tensor,
    num: int = NEIGHBOURS,
    *,
    itself_M: Tensor | None = None,
    apart: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Distances (M, J) to the nearest of some others, rising, and which these are (M, J).

    Args:
        points_MC, others_KC: unit rows.
        num: J, at most; infinity stands where there are fewer.
        itself_M: which of the others each point is: it does not count.
        apart: classes (M,) and (K,): others of the point's class do not count.
    """
    near, which = [], []
    num = min(num, len(others_KC))
    for rows in torch.arange(len(points_MC)).split(max(1, _PRODUCTS // max(len(others_KC), 1))):
        square_BK = (2 - 2 * points_MC[rows] @ others_KC.T).clamp_(min=0)
        if itself_M is not None:
            square_BK[torch.arange(len(rows)), itself_M[rows]] = torch.inf
        if apart is not None:
            square_BK[apart[0][rows, None] == apart[1][None]] = torch.inf
        found = square_BK.topk(num, dim=1, largest=False)
        near.append(found.values.sqrt())
        which.append(found.indices)
    if not near:
        return torch.zeros(0, num), torch.zeros(0, num, dtype=torch.int64)
    return torch.cat(near), torch.cat(which)


@dataclass(frozen=True)
class Threshold:
    """The distance beyond which a crop is a candidate, and what withheld classes say of it.

    Args:
        value: mean distance to the nearest crops, in [0, 2].
        found: share of the crops of withheld classes that lie beyond it.
        mistaken: share of crops that do so with their class in place.
        classes: that were withheld.
    """

    value: float
    found: float
    mistaken: float
    classes: int

    @property
    def balanced_accuracy(self) -> float:
        return (self.found + 1 - self.mistaken) / 2


def choose_threshold(points_KC: Tensor, classes_K: Tensor) -> Threshold:
    """Args:
        points_KC: unit rows.
        classes_K: int64 class of each.

    Raises:
        DataError: fewer than two classes have two crops.
    """
    sizes = torch.bincount(classes_K)
    rows_M = torch.nonzero(sizes[classes_K] > 1).flatten()
    num_classes = int((sizes > 1).sum())
    if num_classes < 2:
        raise DataError(
            "fewer than two classes of the earlier run have two crops: none can be withheld",
            where="kept_crops",
            fix="continue a run with more classes",
        )
    order = torch.randperm(len(rows_M), generator=torch.Generator().manual_seed(_SEED))
    rows_M = rows_M[order[:_ASKED]].sort().values
    asked_MC, class_M = points_KC[rows_M], classes_K[rows_M]
    inside_M = mean_distance(neighbours(asked_MC, points_KC, itself_M=rows_M)[0])
    outside_M = mean_distance(neighbours(asked_MC, points_KC, apart=(class_M, classes_K))[0])
    value, found, mistaken = _best_split(outside_M.double().numpy(), inside_M.double().numpy())
    return Threshold(value, found, mistaken, num_classes)


def mean_distance(near_MJ: Tensor) -> Tensor:
    """Of the distances that there are; infinity of none."""
    there_MJ = near_MJ.isfinite()
    sums_M = torch.where(there_MJ, near_MJ, 0).sum(dim=1)
    return torch.where(there_MJ.any(dim=1), sums_M / there_MJ.sum(dim=1).clamp(min=1), torch.inf)


def _best_split(beyond_M: Floats, within_M: Floats) -> tuple[float, float, float]:
    """Value between two observed ones with the largest balanced accuracy, the smallest of several;
    and the shares of both above it."""
    seen = np.unique(np.concatenate([beyond_M, within_M]))
    seen = seen[np.isfinite(seen)]
    tried = (seen[1:] + seen[:-1]) / 2 if len(seen) > 1 else seen
    shares = [
        1 - np.searchsorted(np.sort(values), tried, side="right") / len(values)
        for values in (beyond_M, within_M)
    ]
    best = int((shares[0] - shares[1]).argmax())
    return float(tried[best]), float(shares[0][best]), float(shares[1][best])


def height_of_classes(points_KC: Tensor, classes_K: Tensor) -> float:
    """Distance (1 - cosine) up to which average linkage finds classes again best: mean over them of
    the best F1 of any cluster."""
    rng = np.random.default_rng(_SEED)
    classes = classes_K.numpy()
    drawn: list[Ints] = []
    for label in rng.permutation(np.unique(classes)):
        if sum(map(len, drawn)) < _JOINED:
            drawn.append(rng.permutation(np.flatnonzero(classes == label))[:_JOINED_PER_CLASS])
    rows = np.sort(np.concatenate(drawn))
    tree_P4, label_M = _tree(points_KC[rows]), classes[rows]
    if not len(tree_P4):
        return 0.0
    heights = np.unique(np.quantile(tree_P4[:, 2], np.linspace(_LOWEST, 1, _HEIGHTS)))
    scores = [_found_again(_cut_at(tree_P4, height), label_M) for height in heights]
    return float(heights[int(np.argmax(scores))])


def _found_again(cluster_M: Ints, label_M: Ints) -> float:
    sizes_C, scores = np.bincount(cluster_M), []
    for label in np.unique(label_M):
        mine = cluster_M[label_M == label]
        if len(mine) >= _LEAST:
            shared_C = np.bincount(mine, minlength=len(sizes_C))
            scores.append(float((2 * shared_C / (sizes_C + len(mine))).max()))
    return float(np.mean(scores)) if scores else 0.0


def _tree(points_NC: Tensor) -> Floats:
    points = points_NC.double().numpy()
    return average_linkage(np.maximum(1 - points @ points.T, 0), np.ones(len(points)))


def _cut_at(tree_P4: Floats, height: float) -> Ints:
    merged = int((tree_P4[:, 2] <= height).sum())
    return cut(tree_P4, len(tree_P4) + 1 - merged)


@dataclass(frozen=True)
class NewClasses:
    """What became of candidates.

    Args:
        cluster_N: new class of each, from large to small, -1 of what makes none.
        own_N, old_N: mean distance to the nearest crops of its cluster, infinity without one, and
            of classes at hand.
    """

    cluster_N: Ints
    own_N: Floats
    old_N: Floats

    @property
    def num_classes(self) -> int:
        return int(self.cluster_N.max(initial=-1)) + 1


def new_classes(
    points_NC: Tensor,
    kept_KC: Tensor,
    classes_K: Tensor,
    fitting_MC: Tensor,
    *,
    min_size: int,
    most: int,
    share: float = 1.0,
) -> NewClasses:
    """Join candidates to classes.

    Args:
        points_NC: unit rows of the candidates.
        kept_KC, classes_K: crops of classes at hand.
        fitting_MC: new crops of these classes. There may be many more of them than are kept, and as
            many more odd ones: only beside them it shows that these are no class of their own.
        min_size: crops that make a class, at least 2.
        most: candidates that are joined, at random; others go to the nearest of them.
        share: of all that fit, those of ``fitting_MC``: a cluster is thinned out likewise.
    """
    num, rng = len(points_NC), np.random.default_rng(_SEED)
    old_MC = torch.cat([kept_KC, fitting_MC])
    cluster_N, own_N = np.full(num, -1, dtype=np.int64), np.full(num, np.inf)
    old_N = _mean_to(points_NC, old_MC, NEIGHBOURS)
    if num < min_size:
        return NewClasses(cluster_N, own_N, old_N)
    raw_N = _joined(points_NC, height_of_classes(kept_KC, classes_K), most, rng)
    num_new, sizes = 0, np.bincount(raw_N)
    for cluster in np.argsort(-sizes, kind="stable"):
        rows = np.flatnonzero(raw_N == cluster)
        if len(rows) < min_size:
            break
        beside = rng.permutation(rows)[: max(round(share * len(rows)), min_size)]
        near = min(NEIGHBOURS, len(beside) - 1)
        is_beside = np.isin(rows, beside)
        own_N[rows] = _mean_to(points_NC[rows], points_NC[beside], near)
        mine = rows[is_beside]
        itself = torch.from_numpy(np.argsort(beside))  # of rising rows, their places in beside
        own_N[mine] = _mean_to(points_NC[mine], points_NC[beside], near, itself_M=itself)
        if near < NEIGHBOURS:
            old_N[rows] = _mean_to(points_NC[rows], old_MC, near)
        if (own_N[rows] < old_N[rows]).mean() > 1 / 2:
            cluster_N[rows] = num_new
            num_new += 1
    return NewClasses(cluster_N, own_N, old_N)


def _joined(points_NC: Tensor, height: float, most: int, rng: np.random.Generator) -> Ints:
    """Cluster (N,) of each candidate."""
    num = len(points_NC)
    drawn = np.sort(rng.permutation(num)[:most])
    raw_N = np.full(num, -1, dtype=np.int64)
    raw_N[drawn] = _cut_at(_tree(points_NC[drawn]), height)
    others = np.flatnonzero(raw_N < 0)
    if len(others):
        nearest = neighbours(points_NC[others], points_NC[drawn], 1)[1][:, 0].numpy()
        raw_N[others] = raw_N[drawn][nearest]
    return raw_N


def _mean_to(
    points_NC: Tensor, others_KC: Tensor, num: int, itself_M: Tensor | None = None
) -> Floats:
    return (
        mean_distance(neighbours(points_NC, others_KC, num, itself_M=itself_M)[0]).double().numpy()
    )
