"""Centres of k-means among embeddings: known classes first, whatever the labels leave open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scene_tables import memory_table

from gcdis_ray.clustering.partitions import name_clusters
from gcdis_ray.clustering.spaces import Space
from gcdis_ray.errors import DataError
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.kmeans.method import Config
from gcdis_ray.methods.kmeans.model import draw, find_centres
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.artifacts import Table

CLASSES, PER_CLASS, DIMS = 6, 30, 12
BLOB = np.repeat(np.arange(CLASSES), PER_CLASS)
PART = np.tile(np.arange(PER_CLASS), CLASSES)  # of its class


def vectors() -> torch.Tensor:
    """Unit rows around six directions that share a large common part."""
    generator = torch.Generator().manual_seed(3)
    directions = F.normalize(torch.randn(CLASSES, DIMS, generator=generator), dim=1)
    noise = 0.1 * torch.randn(len(BLOB), DIMS, generator=generator)
    return F.normalize(4 * torch.ones(DIMS) / DIMS**0.5 + directions[BLOB] + noise, dim=1)


def embeddings(labels: np.ndarray) -> Table:
    rows = [
        {"crop_index": n, "class_index": int(label), "embedding": vector.tolist()}
        for n, (label, vector) in enumerate(zip(labels, vectors(), strict=True))
    ]
    return memory_table("embeddings", [rows[:50], [], rows[50:]])


def problem(num_known: int, hold_out: HoldOut | None = None, outputs: int = CLASSES) -> Problem:
    return Problem(memory_table("crops", []), num_known, outputs, seed=0, hold_out=hold_out)


def labels_of(known: int, labeled: int = 10) -> np.ndarray:
    """The first crops of the first classes are labeled."""
    return np.where((known > BLOB) & (labeled > PART), BLOB, -1)


def configured(**options: Any) -> Config:
    return Config.model_validate(options)


def clusters(found: dict[str, torch.Tensor]) -> np.ndarray:
    points = Space.of(found).place(vectors())
    return (points @ found["centres_KC"].T).argmax(dim=1).numpy()


@pytest.mark.parametrize("components", [None, 5])
@pytest.mark.parametrize("algorithm", ["semi_supervised", "plain"])
def test_known_classes_come_first_and_novel_ones_are_found(algorithm, components):
    config = configured(algorithm=algorithm, components=components)
    found = find_centres(problem(3), embeddings(labels_of(3)), config)
    cluster = clusters(found)
    np.testing.assert_array_equal(cluster[BLOB < 3], BLOB[BLOB < 3])
    novel = [set(cluster[blob == BLOB].tolist()) for blob in range(3, CLASSES)]
    assert sorted(min(one) for one in novel) == [3, 4, 5]
    assert all(len(one) == 1 for one in novel)
    torch.testing.assert_close(found["centres_KC"].norm(dim=1), torch.ones(CLASSES))
    assert found["centres_KC"].shape == (CLASSES, components or DIMS)


@pytest.mark.parametrize("algorithm", ["semi_supervised", "plain"])
def test_the_seed_decides_all(algorithm):
    table, config = embeddings(labels_of(2)), configured(algorithm=algorithm, components=4)
    one, two = (find_centres(problem(2), table, config) for _ in range(2))
    assert one.keys() == two.keys() == {"centres_KC", "mean_D", "axes_DC"}
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("algorithm", ["semi_supervised", "plain"])
def test_withheld_labels_are_not_looked_at(algorithm):
    labels, hold_out = labels_of(4), HoldOut(hidden=(1,), visible=(0, 2, 3))
    config = configured(algorithm=algorithm)
    found = find_centres(problem(4, hold_out), embeddings(labels), config)
    withheld = np.where(labels == 1, -1, labels)
    told = np.where(withheld > 1, withheld - 1, withheld)
    expected = find_centres(problem(3), embeddings(told), config)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    np.testing.assert_array_equal(clusters(found)[BLOB == 3], 2)


@pytest.mark.parametrize("algorithm", ["semi_supervised", "plain"])
def test_a_known_class_without_labeled_crops_has_no_centre(algorithm):
    labels = np.where(labels_of(3) == 1, -1, labels_of(3))
    config = configured(algorithm=algorithm)
    centres = find_centres(problem(3), embeddings(labels), config)["centres_KC"]
    assert centres.any(dim=1).tolist() == [True, False, True, True, True, True]


def test_more_outputs_than_crops():
    found = find_centres(
        problem(2, outputs=500), embeddings(labels_of(2)), configured(algorithm="plain", n_init=1)
    )
    assert int(found["centres_KC"].any(dim=1).sum()) == len(BLOB)


def test_nothing_is_subtracted_unless_asked():
    table = embeddings(labels_of(3))
    assert not find_centres(problem(3), table, configured(centre=False))["mean_D"].any()
    mean = find_centres(problem(3), table, configured())["mean_D"]
    torch.testing.assert_close(mean, vectors().mean(dim=0))


def test_without_crops_there_is_an_error_that_says_so():
    with pytest.raises(DataError, match="no crop"):
        find_centres(problem(1), memory_table("embeddings", [[], []]), configured())


def test_two_classes_in_one_cluster_get_a_cluster_each():
    """Of clusters that no labeled crop fell into, the nearest one stands for the class."""
    centres = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.8, 0, 1]]), dim=1)
    points = F.normalize(torch.tensor([[1.0, 0, 0], [1, 0, 0.1], [1, 0, 0.2]]), dim=1)
    names = name_clusters(points, torch.tensor([1, 1, 0]), centres, 2)
    assert names.tolist() == [1, 2, 0]
    names = name_clusters(points, torch.full((3,), -1), centres, 2)
    assert names.tolist() == [2, 3, 4]


def test_a_draw_holds_some_of_every_labeled_class():
    labels = torch.full((5000,), -1)
    labels[1000:1003], labels[2000:4000] = 0, 1
    rows = draw(labels, 1000, torch.Generator().manual_seed(0))
    assert len(rows) == 1000
    assert torch.equal(rows, torch.unique(rows))
    assert int((labels[rows] == 0).sum()) == 3
    assert 300 < int((labels[rows] == 1).sum()) < 500
    assert torch.equal(draw(labels, 5000, torch.Generator()), torch.arange(5000))


def test_centres_are_found_on_a_draw_where_crops_are_many(monkeypatch):
    config = configured().model_copy(update={"max_crops": 90})
    found = find_centres(problem(3), embeddings(labels_of(3)), config)
    np.testing.assert_array_equal(clusters(found)[BLOB < 3], BLOB[BLOB < 3])
