"""Placing: what is chosen by withheld labels, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from scene_tables import FakeArtifact, memory_table

from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.placing import BASELINES, place, place_by, rank
from gcdis_ray.methods.placing_config import PlacingConfig
from gcdis_ray.methods.placing_trials import Candidate
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.tables import PLACING_TRIALS

CLASSES, PER_CLASS, DIMS = 6, 24, 12
BLOB = np.repeat(np.arange(CLASSES), PER_CLASS)
PART = np.tile(np.arange(PER_CLASS), CLASSES)  # of its class
FAST = {"splits": 2, "stretches": [0.8, 1.0, 1.25], "dims": 8}


def vectors() -> torch.Tensor:
    """Unit rows around six directions that share a large common part."""
    generator = torch.Generator().manual_seed(3)
    directions = F.normalize(torch.randn(CLASSES, DIMS, generator=generator), dim=1)
    noise = 0.1 * torch.randn(len(BLOB), DIMS, generator=generator)
    return F.normalize(4 * torch.ones(DIMS) / DIMS**0.5 + directions[BLOB] + noise, dim=1)


def labels_of(known: int, labeled: int = 10) -> np.ndarray:
    """The first crops of the first classes are labeled."""
    return np.where((known > BLOB) & (labeled > PART), BLOB, -1)


def problem(labels: np.ndarray, cuts: tuple[int, ...] = (50, 50), **options: Any) -> Problem:
    rows = [
        {"crop_index": n, "class_index": int(label), "embedding": vector.tolist()}
        for n, (label, vector) in enumerate(zip(labels, vectors(), strict=True))
    ]
    shards, first = [], 0
    for cut in (*cuts, len(rows)):
        shards.append(rows[first:cut])
        first = cut
    known = int(labels.max()) + 1
    return Problem(
        crops=memory_table("crops", []),
        num_known=max(known, 1),
        num_outputs=options.pop("outputs", CLASSES),
        seed=0,
        space=FakeArtifact({"embeddings": memory_table("embeddings", shards)}),  # pyright: ignore[reportArgumentType]
        hold_out=options.pop("hold_out", None),
        placing=PlacingConfig.model_validate(FAST | options),
    )


def purity(placed: np.ndarray) -> float:
    """Share of crops that are in a cluster of their own class."""
    most = [np.bincount(BLOB[placed == cluster]).max() for cluster in np.unique(placed)]
    return sum(most) / len(placed)


def test_known_classes_come_first_and_novel_ones_are_found(local_work):
    placed = place(problem(labels_of(3)), local_work)
    np.testing.assert_array_equal(placed[BLOB < 3], BLOB[BLOB < 3])
    assert purity(placed) == 1
    assert sorted(np.unique(placed)) == list(range(CLASSES))
    stored = local_work.table("placed").read()
    np.testing.assert_array_equal(stored["cluster_id"].to_numpy(), placed)
    np.testing.assert_array_equal(stored["crop_index"].to_numpy(), np.arange(len(placed)))


def test_every_choice_is_judged_and_the_best_ones_are_joined(local_work):
    place(problem(labels_of(4), best=3), local_work)
    trials = local_work.table("placing_trials").read()
    spaces = {"raw", "centred", "half-whitened 8", "whitened 8"}
    assert set(trials["space"].to_pylist()) == spaces
    assert trials.num_rows == 2 * len(spaces) * (3 + 2)  # splits, spaces, stretches and k-means
    told = local_work.attempt.storage.read(
        f"{local_work.attempt.base}/{local_work.files['placing'][0].path}"
    )
    assert told.count(b'"clusterer"') == len(spaces) * 5 + len(BASELINES)
    assert b'"num_joined": 3' in told


@pytest.mark.parametrize("cuts", [(), (7, 7, 90)])
def test_shards_change_nothing(local_work, cuts):
    expected = place(problem(labels_of(3)), local_work.trial("expected"))
    np.testing.assert_array_equal(place(problem(labels_of(3), cuts), local_work), expected)


def test_small_clusters_stand_for_crops_where_these_are_many(local_work):
    few = problem(labels_of(3), points_tried=30, points=40)
    placed = place(few, local_work)
    np.testing.assert_array_equal(placed[labels_of(3) >= 0], labels_of(3)[labels_of(3) >= 0])
    assert purity(placed) > 0.95


def test_a_withheld_label_is_not_seen(local_work):
    labels = labels_of(4)
    hidden = HoldOut(hidden=(1,), visible=(0, 2, 3), withheld=(0, 1, 2))
    placed = place(problem(labels, hold_out=hidden), local_work.trial("one"))
    told = hidden.told(labels)
    assert (told[:3] == -1).all()
    others = np.where((labels == 1) | (np.arange(len(labels)) < 3), 1, labels)
    hidden_more = replace(hidden, withheld=())
    again = place(problem(others, hold_out=hidden_more), local_work.trial("two"))
    np.testing.assert_array_equal(placed, again)
    assert purity(placed) == 1
    assert hidden.score_all(placed, labels).mean == 1


def test_each_alone(local_work):
    found = place_by(problem(labels_of(3)), BASELINES)
    assert list(found) == list(BASELINES)
    assert all(purity(placed) > 0.9 for placed in found.values())


def test_more_outputs_than_classes_leave_classes_whole(local_work):
    placed = place(problem(labels_of(3), outputs=9), local_work)
    largest = [np.bincount(placed[blob == BLOB]).max() for blob in range(CLASSES)]
    assert min(largest) >= 0.7 * PER_CLASS


@pytest.mark.parametrize(
    ("labels", "outputs", "error", "words"),
    [
        (labels_of(1), 6, ConfigError, "one known class has labeled crops"),
        (labels_of(0), 6, DataError, "no crop has a label"),
        (labels_of(3), 200, DataError, "200 classes of 144 crops"),
    ],
)
def test_what_cannot_be_placed_is_named(local_work, labels, outputs, error, words):
    with pytest.raises(error, match=words):
        place(problem(labels, outputs=outputs), local_work)


def trial(space: str, split: int, known: float | None, novel: float | None) -> dict[str, Any]:
    row = {"split": split, "space": space, "clusterer": "linkage", "stretch": 1.0}
    return row | {"known": known, "novel": novel}


def test_rank_is_by_the_mean_of_known_and_novel_over_splits():
    rows = [
        trial("raw", 1, 0.5, 0.9),
        trial("centred", 0, 0.8, 0.6),
        trial("raw", 0, 0.7, 0.5),
        trial("centred", 1, None, 0.7),
    ]
    ranked = rank(pa.Table.from_pylist(rows, PLACING_TRIALS))
    assert [entry.candidate for entry in ranked] == [
        Candidate("centred", "linkage", 1.0),
        Candidate("raw", "linkage", 1.0),
    ]
    best, other = ranked
    assert (best.known, best.novel, best.score) == pytest.approx((0.8, 0.65, 0.7))
    assert best.deviation == 0
    assert (other.known, other.novel, other.score) == pytest.approx((0.6, 0.7, 0.65))
    assert other.deviation == pytest.approx(0.05)


def test_seeds_of_any_size_and_all_labels_that_fit(local_work):
    large = replace(problem(labels_of(3, labeled=20), points_tried=100), seed=2**31 - 1)
    placed = place(large, local_work)
    assert purity(placed) == 1
    stored = local_work.tensor_file("placing_points").load()
    assert (stored["labels_G"] >= 0).sum() == 60


def test_spaces_are_tried_once_where_embeddings_have_few_dimensions(local_work):
    place(problem(labels_of(3), dims=128, outputs=40), local_work)
    spaces = set(local_work.table("placing_trials").read()["space"].to_pylist())
    assert spaces == {"raw", "centred", "half-whitened 128", "whitened 128"}
