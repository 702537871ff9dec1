"""The k-means baseline on more crops than its centers are found on."""

from __future__ import annotations

import numpy as np
import pytest
from scene_tables import memory_table

from gcdis_ray.evaluation import discovery_scores
from gcdis_ray.evaluation.discovery_scores import Baseline


@pytest.mark.parametrize("most", [12, 100])
def test_every_crop_has_a_cluster_wherever_the_centers_come_from(
    most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(discovery_scores, "MAX_KMEANS_CROPS", most)
    rng = np.random.default_rng(0)
    group_N = np.repeat([0, 1, 2], 10)
    points = np.eye(3)[group_N] + rng.normal(0, 0.01, (30, 3))
    rows = [
        {"crop_index": n, "class_index": -1, "embedding": points[n].tolist()}
        for n in rng.permutation(30).tolist()
    ]
    shards = memory_table("embeddings", [rows[:7], [], rows[7:8], rows[8:]])
    cluster_N = Baseline(num_clusters=3, n_init=5, seed=0).of_embeddings(shards)
    assert {len(set(cluster_N[group_N == g].tolist())) for g in range(3)} == {1}
    assert len(set(cluster_N.tolist())) == 3
