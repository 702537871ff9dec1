"""Probabilities of clusters that are several outputs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gcdis_ray.methods.groups import Grouped, group_probabilities
from gcdis_ray.methods.method import Inferred


def softmax(logits: np.ndarray) -> np.ndarray:
    power = np.exp(logits)
    return (power / power.sum(axis=1, keepdims=True)).astype(np.float32)


def test_grouped_probabilities_by_their_definition():
    """A softmax over the outputs that are left, summed within each cluster."""
    logits = np.random.default_rng(0).normal(size=(4, 6))
    groups = [[0], [4, 1], [5]]
    found = group_probabilities(softmax(logits), groups)
    assert found.dtype == np.float32
    power = np.exp(logits)
    total = power[:, [0, 1, 4, 5]].sum(axis=1)
    for cluster, group in enumerate(groups):
        np.testing.assert_allclose(
            found[:, cluster], power[:, group].sum(axis=1) / total, rtol=1e-5
        )


def test_every_output_a_cluster_of_its_own_changes_nothing():
    probabilities = softmax(np.random.default_rng(1).normal(size=(3, 4)))
    found = group_probabilities(probabilities, [[0], [1], [2], [3]])
    np.testing.assert_allclose(found, probabilities, rtol=1e-6)


def test_a_crop_of_dropped_outputs_only_is_in_no_cluster_and_no_crops_are_none():
    nothing = np.array([[0.0, 1.0, 0.0]], np.float32)
    assert group_probabilities(nothing, [[0], [2]]).tolist() == [[0, 0]]
    assert group_probabilities(nothing[:0], [[0], [2]]).shape == (0, 2)


class Fixed:
    """A trained method that says the same of every crop."""

    num_outputs, width = 3, 2

    def infer(self, crops: pa.Table) -> Inferred:
        rows = crops.num_rows
        return Inferred(np.full((rows, 3), 1 / 3, np.float32), np.ones((rows, 2), np.float32))

    def prototypes_KF(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)


def test_a_grouped_method_speaks_of_clusters():
    grouped = Grouped(Fixed(), [[0], [1, 2]])
    assert (grouped.num_outputs, grouped.width) == (2, 2)
    found = grouped.infer(pa.table({"crop_index": [0, 1]}))
    np.testing.assert_allclose(found.probabilities_NC, [[1 / 3, 2 / 3]] * 2, rtol=1e-6)
    assert found.embeddings_ND.shape == (2, 2)
    with pytest.raises(NotImplementedError, match="no prototype"):
        grouped.prototypes_KF()
