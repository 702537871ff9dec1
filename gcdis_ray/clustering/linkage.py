"""Average linkage of nodes that stand for any number of points, with labels kept.

k-means prefers clusters of equal mass: with a long tail it splits frequent classes and lumps rare
ones. Average linkage does not care for mass. The labeled points of a known class are one node from
the start, and two known classes never join.

The average cosine of two groups of unit vectors is the product of their means. So a node is the
mean of its points, not scaled to length 1, and its weight their number: what comes of nodes that
stand for many points is what would come of the points, once these are joined.

Shape letters: M nodes, F nodes without a label, D dimensions, K classes, L known classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_APART = 1e15  # distance of two known classes: whatever joins them, the average stays apart
_MOST_OUTLIERS = 200  # clusters beyond the wanted number that are looked at


def average_linkage(distance_MM: Floats, weight_M: Floats) -> Floats:
    """The tree of average linkage (UPGMA), by the nearest-neighbour chain (Murtagh 1983).

    Time grows with M squared. The distances are overwritten.

    Args:
        distance_MM: symmetric; the diagonal does not count.
        weight_M: points that each node stands for, above 0.

    Returns:
        (M - 1, 4), merges by rising distance, as scipy's ``linkage`` gives them for nodes of one
        point each; the last column counts nodes.
    """
    num, weight_M = len(weight_M), weight_M.astype(np.float64)
    np.fill_diagonal(distance_MM, np.inf)
    merges_P3, chain, first = np.empty((max(num - 1, 0), 3)), [], 0
    gone_M = np.zeros(num, dtype=bool)
    for done in range(num - 1):
        if not chain:
            while gone_M[first]:
                first += 1
            chain.append(first)
        while True:
            row_M = distance_MM[chain[-1]]
            nearest = int(row_M.argmin())
            if len(chain) > 1 and row_M[chain[-2]] <= row_M[nearest]:
                break
            chain.append(nearest)
        kept, lost = chain.pop(), chain.pop()
        merges_P3[done] = kept, lost, distance_MM[kept, lost]
        row_M = weight_M[kept] * distance_MM[kept] + weight_M[lost] * distance_MM[lost]
        row_M /= weight_M[kept] + weight_M[lost]
        row_M[kept] = np.inf
        weight_M[kept] += weight_M[lost]
        distance_MM[kept], distance_MM[:, kept] = row_M, row_M
        distance_MM[lost], distance_MM[:, lost], gone_M[lost] = np.inf, np.inf, True
    return _tree(merges_P3)


def _tree(merges_P3: Floats) -> Floats:
    """Merges in the order of their distances, clusters by number: those below M are nodes, the next
    ones come of the merges."""
    num = len(merges_P3) + 1
    tree_P4, parent = np.empty((num - 1, 4)), list(range(2 * num - 1))
    size = [1] * (2 * num - 1)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for step, merge in enumerate(np.argsort(merges_P3[:, 2], kind="stable")):
        left, right = (root(int(node)) for node in merges_P3[merge, :2])
        pair = sorted((left, right))
        made = num + step
        parent[left] = parent[right] = made
        size[made] = size[left] + size[right]
        tree_P4[step] = *pair, merges_P3[merge, 2], size[made]
    return tree_P4


def cut(tree_P4: Floats, num_clusters: int) -> Ints:
    """Cluster (M,) of each node where the closest pairs are merged until so many are left. Unlike a
    threshold on the distance, it cuts between equal ones.

    Args:
        tree_P4: merges by rising distance; those of equal distance in the order they have.
        num_clusters: from 1 to M.
    """
    num = len(tree_P4) + 1
    parent = np.full(2 * num - 1, 2 * num)
    parent[tree_P4[:, :2].astype(np.int64)] = num + np.arange(num - 1)[:, None]
    kept, ancestor_M = 2 * num - num_clusters, np.arange(num)
    while True:
        above_M = parent[ancestor_M]
        if not (above_M < kept).any():
            return np.unique(ancestor_M, return_inverse=True)[1]
        ancestor_M = np.where(above_M < kept, above_M, ancestor_M)


@dataclass(frozen=True)
class LabeledNodes:
    """Nodes to be joined, those of known classes first.

    Args:
        mean_MD: float64 mean of the unit vectors that each node stands for.
        weight_M: how many.
        classes: class of each of the first nodes, rising; all other nodes are unlabeled.
    """

    mean_MD: Floats
    weight_M: Floats
    classes: tuple[int, ...]

    def trees(self, stretches: Sequence[float]) -> Iterator[Floats]:
        """A tree for each ``labeled_stretch``; see :func:`semi_supervised_linkage`."""
        plain_MM = np.maximum(1 - self.mean_MD @ self.mean_MD.T, 0)
        for stretch in stretches:
            yield self.tree(plain_MM.copy(), stretch)

    def tree(self, distance_MM: Floats, stretch: float = 1.0) -> Floats:
        """The tree by other distances than those of the means; they are overwritten."""
        num_told = len(self.classes)
        distance_MM[:num_told, num_told:] *= stretch
        distance_MM[num_told:, :num_told] *= stretch
        distance_MM[:num_told, :num_told] = _APART
        return average_linkage(distance_MM, self.weight_M)

    def clusters(
        self, tree_P4: Floats, num_known: int, num_classes: int, min_weight: float = 0.0
    ) -> Ints:
        """Cluster (F,) of every unlabeled node: known classes first, then novel clusters from heavy
        to light. Fewer than ``num_classes`` where there are too few nodes.

        Args:
            num_known: L, those without a labeled point included: nothing is in their clusters.
            min_weight: novel clusters of fewer points are outliers: they do not count as classes,
                and join the nearest cluster that does.
        """
        num_told, num = len(self.classes), len(self.weight_M)
        free_M = np.arange(num) >= num_told
        wanted = min(max(num_classes - (num_known - num_told), 1), num)
        count = wanted
        while True:
            raw_M = cut(tree_P4, count)
            mass_C = np.bincount(raw_M, self.weight_M * free_M)
            counted_C = mass_C >= min_weight
            counted_C[raw_M[:num_told]] = True
            if counted_C.sum() >= wanted or count == min(num, wanted + _MOST_OUTLIERS):
                break
            count += 1
        name_C = np.full(len(mass_C), -1)
        name_C[raw_M[:num_told]] = self.classes
        order = np.argsort(-mass_C, kind="stable")
        novel = order[(counted_C & (name_C < 0))[order]][: num_classes - num_known]
        name_C[novel] = num_known + np.arange(len(novel))
        if (name_C < 0).any():
            name_C = self._joined(raw_M, name_C)
        return name_C[raw_M[num_told:]]

    def _joined(self, raw_M: Ints, name_C: Ints) -> Ints:
        """Names with each cluster that has none given that of the nearest one."""
        sum_CD = np.zeros((len(name_C), self.mean_MD.shape[1]))
        np.add.at(sum_CD, raw_M, self.mean_MD * self.weight_M[:, None])
        mean_CD = sum_CD / np.bincount(raw_M, self.weight_M)[:, None]
        named, nameless = np.flatnonzero(name_C >= 0), np.flatnonzero(name_C < 0)
        nearest = (mean_CD[nameless] @ mean_CD[named].T).argmax(axis=1)
        joined_C = name_C.copy()
        joined_C[nameless] = name_C[named[nearest]]
        return joined_C


def label_nodes(vectors_ND: Floats, labels_N: Ints, weight_N: Floats | None = None) -> LabeledNodes:
    """A node for every class with labels, and one for each unlabeled row.

    Args:
        vectors_ND: unit rows, or means of such rows.
        labels_N: class of a labeled row, -1 of an unlabeled one.
        weight_N: points that each row stands for; None: one.
    """
    weight_N = np.ones(len(labels_N)) if weight_N is None else weight_N
    classes, place = np.unique(labels_N[labels_N >= 0], return_inverse=True)
    told_N = labels_N >= 0
    weight_C = np.bincount(place, weight_N[told_N], minlength=len(classes))
    sum_CD = np.zeros((len(classes), vectors_ND.shape[1]))
    np.add.at(sum_CD, place, vectors_ND[told_N] * weight_N[told_N, None])
    return LabeledNodes(
        np.concatenate([sum_CD / weight_C[:, None], vectors_ND[~told_N]]).astype(np.float64),
        np.concatenate([weight_C, weight_N[~told_N]]).astype(np.float64),
        tuple(classes.tolist()),
    )


def semi_supervised_linkage(
    vectors_ND: Floats,
    labels_N: Ints,
    num_known: int,
    num_classes: int,
    *,
    min_share: float = 0.0,
    labeled_stretch: float = 1.0,
) -> Ints:
    """Cluster of every row by average linkage of cosines, labels kept.

    Time and memory grow with N squared: 6,000 rows take some seconds and 600 MB.

    Args:
        vectors_ND: float64 unit rows.
        labels_N: known class of a labeled row, -1 of an unlabeled one.
        min_share: novel clusters of less than this share of the unlabeled rows are outliers: they
            do not count as classes, and join the nearest cluster that does.
        labeled_stretch: factor on distances between labeled and unlabeled points. Where training on
            labels has drawn labeled points together, more than 1 keeps a look-alike novel class
            from joining them whole.

    Returns:
        (N,) known classes first, then novel clusters from large to small. Fewer than
        ``num_classes`` where there are too few rows.
    """
    nodes = label_nodes(vectors_ND, labels_N)
    (tree_P4,) = nodes.trees([labeled_stretch])
    cluster_N = labels_N.copy()
    smallest = min_share * np.count_nonzero(labels_N < 0)
    cluster_N[labels_N < 0] = nodes.clusters(tree_P4, num_known, num_classes, smallest)
    return cluster_N
