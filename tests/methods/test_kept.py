"""New crops among kept ones, by a method that says what it is told to."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from gcdis_ray.clustering import spaces
from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.methods.kept import KeptPoints, SortCrops, class_means
from gcdis_ray.methods.method import Inferred
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.methods.tables import SORTED
from gcdis_ray.store.artifacts import Table

AXES = np.eye(4, dtype=np.float32)


class Told:
    """A method of four outputs that is as sure as crops say."""

    num_outputs = 4

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = np.array(rows, np.float32)

    def infer(self, crops: pa.Table) -> Inferred:
        assert "embedding" in crops.column_names
        return Inferred(self.rows, np.zeros((len(self.rows), 2), np.float32))


class Stored:
    uses_embeddings = True

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def open(self, device: str) -> Told:
        return Told(self.rows)


class Kept:
    """Four crops of each of three classes, each class along an axis."""

    def read(self, columns: list[str]) -> pa.Table:
        classes = np.arange(3).repeat(4)
        noise = np.random.default_rng(0).normal(0, 0.05, (12, 4)).astype(np.float32)
        vectors = AXES[classes] + noise
        return pa.table({"class_index": classes.astype(np.int32), "embedding": as_lists(vectors)})


def sort(rows: list[list[float]], points: Any, outputs: list[list[int]]) -> list[dict[str, Any]]:
    task = SortCrops(cast(StoredMethod, Stored(rows)), cast(Table, Kept()), outputs, 2)
    crops = pa.table({"crop_index": pa.array(range(len(rows)), pa.int64())})
    embeddings = pa.table({"embedding": as_lists(np.array(points, np.float32).reshape(-1, 4))})
    return task.open("cpu")(0, crops, embeddings)["sorted"].to_pylist()


def test_outputs_of_one_class_add_up():
    (row,) = sort([[0.4, 0.3, 0.3, 0.0]], [AXES[0]], [[0], [1, 2], [3]])
    assert row["class_index"] == 1
    assert row["topk_ids"] == [1, 0]
    assert row["topk_probabilities"] == pytest.approx([0.6, 0.4])
    assert row["probability"] == pytest.approx(0.6)


def test_a_class_that_came_later_takes_what_lies_in_it():
    rows = [[0.9, 0.1, 0.0, 0.0]] * 2
    inside, outside = sort(rows, [AXES[2], AXES[0]], [[0], [1, 2, 3], []])
    assert inside["class_index"] == 2
    assert inside["topk_ids"][0] == 2
    assert outside["class_index"] == 0
    assert inside["distance"] < 0.2


def test_what_is_like_a_rejected_class_has_none():
    rows = [[0.1, 0.1, 0.1, 0.7], [0.6, 0.1, 0.1, 0.2], [0.1, 0.1, 0.1, 0.7]]
    found = sort(rows, [AXES[0], AXES[0], AXES[2]], [[0], [1, 2], []])
    assert [row["class_index"] for row in found] == [-1, 0, 2]


def test_distances_grow_with_what_is_far():
    near, far = sort([[1.0, 0, 0, 0]] * 2, [AXES[0], AXES[3]], [[0], [1], [2, 3]])
    assert near["distance"] < 0.3 < far["distance"]


def test_an_empty_shard_is_one():
    task = SortCrops(cast(StoredMethod, Stored([])), cast(Table, Kept()), [[0], [1], [2, 3]], 2)
    crops = pa.table({"crop_index": pa.array([], pa.int64())})
    assert task.open("cpu")(0, crops, crops)["sorted"] == SORTED.empty_table()


def test_means_and_spreads_of_classes():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    mean, spread = class_means(points, torch.tensor([0, 0, 2]), 3)
    assert mean.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert spread.tolist() == [1, 0, 0]


def test_points_are_centred_on_those_that_are_kept():
    kept = KeptPoints.of(cast(Table, Kept()))
    vectors = torch.tensor(AXES)
    space = spaces.Space(kept.space.mean_D, None)
    torch.testing.assert_close(kept.place(as_lists(AXES)), space.place(vectors))
    assert kept.points_KC.norm(dim=1).tolist() == pytest.approx([1.0] * 12)
