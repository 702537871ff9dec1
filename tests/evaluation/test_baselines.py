"""Clustering alone: wherever centers come from, and who names its clusters."""

from __future__ import annotations

import numpy as np
import pytest
from scene_tables import memory_table

from gcdis_ray.evaluation import baselines
from gcdis_ray.evaluation.baselines import Baseline, Partition, named_by_labels
from gcdis_ray.store.artifacts import Table

GROUP_N = np.repeat([0, 1, 2], 10)


def three_groups(**labels: int) -> Table:
    """Thirty crops in three groups, in any order; ``crop_3=1`` gives crop 3 the label 1."""
    rng = np.random.default_rng(0)
    points = np.eye(3)[GROUP_N] + rng.normal(0, 0.01, (30, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rows = [
        {
            "crop_index": n,
            "class_index": labels.get(f"crop_{n}", -1),
            "embedding": points[n].tolist(),
        }
        for n in rng.permutation(30).tolist()
    ]
    return memory_table("embeddings", [rows[:7], [], rows[7:8], rows[8:]])


@pytest.mark.parametrize("most", [12, 100])
def test_every_crop_has_a_cluster_wherever_the_centers_come_from(
    most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(baselines, "MAX_CROPS", most)
    found = Baseline(num_clusters=3, n_init=5, seed=0).of_embeddings(three_groups())
    assert found.known is None
    groups = [set(found.cluster_N[g == GROUP_N].tolist()) for g in range(3)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3


@pytest.mark.parametrize("most", [12, 100])
def test_labels_decide_which_cluster_is_a_known_class(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baselines, "MAX_CROPS", most)
    embeddings = three_groups(crop_11=0, crop_12=0, crop_25=1)
    found = Baseline(num_clusters=3, n_init=5, seed=0).of_labels(embeddings, num_known=2)
    assert found.cluster_N.tolist() == [2] * 10 + [0] * 10 + [1] * 10
    assert found.known == {0: 0, 1: 1}


def test_a_known_class_without_a_labeled_crop_takes_no_crop():
    """Its centre is zero, which is nearer to a unit vector than most others are."""
    found = Baseline(num_clusters=4, n_init=5, seed=0).of_labels(three_groups(crop_0=1), 2)
    assert set(found.cluster_N[:10].tolist()) == {1}
    assert 0 not in found.cluster_N


def test_labeled_crops_name_the_cluster_that_most_of_them_are_in():
    cluster = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    label = np.array([1, 1, 0, 0, 0, 0, -1, -1])
    named = named_by_labels(Partition(cluster), label)
    assert named.known == {0: 1, 1: 0}  # one to one: 2 has a crop of class 0, and no name is left
    assert named.cluster_N is cluster


def test_a_cluster_without_a_crop_of_the_class_left_stays_nameless():
    named = named_by_labels(Partition(np.array([0, 0, 0, 1])), np.array([0, 0, 1, -1]))
    assert named.known == {0: 0}
    assert named_by_labels(Partition(np.array([0, 1])), np.array([-1, -1])).known == {}
