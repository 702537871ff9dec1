"""Average linkage of weighted nodes against scipy's of points, and what labels do to it."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from gcdis_ray.clustering.linkage import (
    average_linkage,
    cut,
    label_nodes,
    semi_supervised_linkage,
)


def unit(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def blobs(per_class: int = 30, num_classes: int = 6, noise: float = 0.15):
    rng = np.random.default_rng(0)
    classes = np.arange(num_classes).repeat(per_class)
    return unit(np.eye(num_classes, 8)[classes] + noise * rng.normal(size=(len(classes), 8))), (
        classes
    )


def distances(points: np.ndarray) -> np.ndarray:
    found = np.maximum(1 - points @ points.T, 0)
    np.fill_diagonal(found, 0)
    return found


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two partitions are one, whatever the clusters are called."""
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    return len(pairs) == len(set(left.tolist())) == len(set(right.tolist()))


@examples(40)
@given(st.integers(2, 40), st.integers(0, 2**31))
def test_equals_that_of_scipy_where_all_weigh_alike(num, seed):
    found = distances(unit(np.random.default_rng(seed).normal(size=(num, 5))))
    expected = linkage(squareform(found, checks=False), "average")
    tree = average_linkage(found.copy(), np.ones(num))
    np.testing.assert_allclose(tree[:, 2], expected[:, 2], atol=1e-12)
    np.testing.assert_array_equal(tree[:, [0, 1, 3]], expected[:, [0, 1, 3]])


@examples(40)
@given(st.integers(2, 12), st.integers(0, 2**31))
def test_a_heavy_node_is_as_many_points_that_lie_together(num, seed):
    """Points of a node are joined first, at no distance; what follows is the same tree."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 5, size=num)
    points = unit(rng.normal(size=(num, 5)))
    tree = average_linkage(distances(points), weights)
    every = linkage(squareform(distances(points.repeat(weights, axis=0)), checks=False), "average")
    np.testing.assert_allclose(tree[:, 2], every[len(every) - num + 1 :, 2], atol=1e-7)
    for count in range(1, num + 1):
        nodes = fcluster(tree, count, "maxclust")
        assert same(nodes.repeat(weights), fcluster(every, count, "maxclust"))


@examples(40)
@given(st.integers(2, 30), st.integers(0, 2**31))
def test_a_cut_is_that_of_scipy_where_no_distances_are_equal(num, seed):
    found = distances(unit(np.random.default_rng(seed).normal(size=(num, 5))))
    tree = linkage(squareform(found, checks=False), "average")
    for count in range(1, num + 1):
        assert same(cut(tree, count), fcluster(tree, count, "maxclust"))


def test_a_cut_gives_as_many_clusters_as_wanted_between_equal_distances():
    tree = linkage(squareform(1.0 - np.eye(6), checks=False), "average")
    assert [len(np.unique(cut(tree, count))) for count in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert cut(np.zeros((0, 4)), 1).tolist() == [0]


def test_one_label_keeps_its_class_apart_among_many_crops_without():
    rng = np.random.default_rng(0)
    classes = np.arange(5).repeat(60)
    points = unit(np.eye(5, 8)[classes] + 0.1 * rng.normal(size=(300, 8)))
    labels = np.full(300, -1)
    labels[[0, 60]] = 0, 1
    for num_classes in (3, 4):
        found = semi_supervised_linkage(points, labels, 2, num_classes)
        assert {0, 1} <= set(found.tolist())
        assert not set(found[classes == 0].tolist()) & set(found[classes == 1].tolist())


def slow(points, labels, num_classes, stretch):
    """Joins the closest two groups of points, again and again."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
    groups += [np.array([n]) for n in np.flatnonzero(labels < 0)]

    def apart(left, right):
        told = [labels[group].max() >= 0 for group in (left, right)]
        if all(told):
            return np.inf
        pairs = [
            (1 - points[a] @ points[b]) * (stretch if (labels[a] < 0) != (labels[b] < 0) else 1)
            for a in left
            for b in right
        ]
        return np.mean(pairs)

    while len(groups) > num_classes:
        pairs = [(apart(groups[a], groups[b]), a, b) for b in range(len(groups)) for a in range(b)]
        _, a, b = min(pairs)
        groups[a] = np.concatenate([groups[a], groups.pop(b)])
    cluster = np.empty(len(points), dtype=int)
    for number, group in enumerate(groups):
        cluster[group] = number
    return cluster


@pytest.mark.parametrize("stretch", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("seed", range(3))
def test_equals_joining_the_closest_groups_of_points_by_hand(seed, stretch):
    rng = np.random.default_rng(seed)
    points = unit(rng.normal(size=(18, 4)))
    labels = np.where(rng.random(18) < 0.4, rng.integers(0, 2, size=18), -1)
    labels[:2] = 0, 1
    found = semi_supervised_linkage(points, labels, 2, 5, labeled_stretch=stretch)
    assert same(found, slow(points, labels, 5, stretch))


def test_nodes_of_many_points_are_clustered_as_these_are():
    points, classes = blobs(noise=0.1)
    labels = np.where((classes < 3) & (np.arange(len(classes)) % 2 == 0), classes, -1)
    expected = semi_supervised_linkage(points, labels, 3, 6)
    free = np.flatnonzero(labels < 0)  # three neighbours of a class are a node
    told, triples = labels >= 0, free.reshape(-1, 3)
    means = np.concatenate([points[told], points[triples].mean(axis=1)])
    told_or_not = np.concatenate([labels[told], np.full(len(triples), -1)])
    weights = np.concatenate([np.ones(told.sum()), np.full(len(triples), 3.0)])
    nodes = label_nodes(means, told_or_not, weights)
    (tree,) = nodes.trees([1.0])
    found = nodes.clusters(tree, 3, 6)
    np.testing.assert_array_equal(found.repeat(3), expected[triples.ravel()])


def long_tail():
    """A frequent novel class that varies along an arc, two rare narrow ones, and a known one."""
    rng = np.random.default_rng(4)
    classes = np.array([1, 2, 3, 0]).repeat([400, 35, 25, 60])
    means = np.eye(8)[[7, 0, 1, 2]]
    means[3, 1] = 0.45  # the rare ones lie close together
    points = means[classes] + 0.08 * rng.normal(size=(len(classes), 8))
    points[classes == 1, 3] += np.linspace(-0.8, 0.8, 400)
    labels = np.where((classes == 0) & (np.arange(len(classes)) % 2 == 0), 0, -1)
    return unit(points), classes, labels


def test_finds_a_long_tail():
    points, classes, labels = long_tail()
    found = semi_supervised_linkage(points, labels, 1, 4, min_share=0.01)
    assert (found == classes).mean() > 0.98  # novel clusters from large to small


def test_outliers_do_not_count_as_classes():
    points, classes, labels = long_tail()
    points = np.concatenate([points, unit(-points[:3] + 0.3 * np.eye(8)[5:8])])
    labels = np.concatenate([labels, np.full(3, -1)])
    found = semi_supervised_linkage(points, labels, 1, 4, min_share=0.01)
    assert (found[:-3] == classes).mean() > 0.98
    assert not np.array_equal(found, semi_supervised_linkage(points, labels, 1, 4))


def test_keeps_what_it_was_told_and_known_classes_apart():
    points, classes = blobs(num_classes=4)
    labels = np.where(np.arange(len(classes)) % 3 == 0, classes % 2, -1)  # labels that lie
    found = semi_supervised_linkage(points, labels, 2, 4)
    np.testing.assert_array_equal(found[labels >= 0], labels[labels >= 0])


@pytest.mark.parametrize("num_unlabeled", [0, 1, 2])
@pytest.mark.parametrize("known", [[], [0], [0, 0, 2]])
def test_few_points_or_an_unseen_known_class(num_unlabeled, known):
    if not known and not num_unlabeled:
        return
    points, _ = blobs(per_class=1)
    labels = np.array(known + [-1] * num_unlabeled)
    found = semi_supervised_linkage(points[: len(labels)], labels, 3, 5)
    assert found.shape == labels.shape
    assert found[: len(known)].tolist() == known
    assert ((found >= 0) & (found < 5)).all()


def test_stretch_keeps_a_look_alike_apart_from_a_known_class():
    rng = np.random.default_rng(0)
    classes = np.array([0, 1, 2]).repeat(40)
    means = np.eye(8)[[0, 0, 2]]
    means[1, 1] = 0.65  # novel, near the known class; the other novel class varies more
    points = means[classes] + 0.05 * rng.normal(size=(120, 8))
    points[classes == 2, 5] += np.tile([-0.35, 0.35], 20)
    labels = np.where((classes == 0) & (np.arange(120) % 2 == 0), 0, -1)
    plain = semi_supervised_linkage(unit(points), labels, 1, 3)
    stretched = semi_supervised_linkage(unit(points), labels, 1, 3, labeled_stretch=2.0)
    assert (plain[classes == 1] == 0).all()
    assert (stretched[classes == 1] != 0).all()
    assert (stretched[classes == 0] == 0).all()
