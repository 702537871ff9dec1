"""What is taken from placed clusters: who is where, and how large clusters are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.placed import PlacedClusters, check_placed, cluster_shares
from gcdis_ray.methods.problem import Problem

LABELS = torch.tensor([0, 1, -1, -1, -1, -1])
PLACED = np.array([1, 1, 0, 2, 2, 3])  # the first crop was placed elsewhere than its label


def problem(placed: np.ndarray | None = PLACED) -> Problem:
    crops: Any = None
    return Problem(crops, 2, 5, seed=0, placed_N=placed)


def clusters(takes: bool = True, sizes: str = "placed") -> PlacedClusters:
    config: Any = SimpleNamespace(takes_placed=takes, sizes=sizes)
    return PlacedClusters(problem(), LABELS, config, torch.device("cpu"))


def test_a_label_counts_more_than_where_its_crop_was_placed():
    part = {"instances": torch.tensor([5, 0, 3])}
    assert clusters().of_unlabeled(part).tolist() == [3, -1, 2]
    assert clusters(takes=False, sizes="uniform").of_unlabeled(part).tolist() == [-1, -1, -1]


def test_sizes_are_those_of_what_is_looked_at():
    free = clusters().shares_of_unlabeled()  # 1 0 2 1 0 crops; empty clusters count as one
    torch.testing.assert_close(free, torch.tensor([1, 1, 2, 1, 1]) / 6)
    batch = clusters().shares_of_batch(0.5)  # labeled crops weigh 1/4, others 1/8
    expected = torch.tensor([1 / 4 + 1 / 8, 1 / 4, 2 / 8, 1 / 8, 1 / 6])
    torch.testing.assert_close(batch, expected / expected.sum())
    plain = clusters().shares_of_batch(None)
    torch.testing.assert_close(plain, torch.tensor([2, 1, 2, 1, 1]) / 7)
    assert clusters(sizes="uniform").shares_of_unlabeled().tolist() == pytest.approx([0.2] * 5)


def test_shares_sum_to_one_and_none_is_nothing():
    shares = cluster_shares(torch.tensor([0, 0, 3]), torch.tensor([1.0, 0.0, 1.0]), 4)
    assert float(shares.sum()) == pytest.approx(1)
    assert shares.tolist() == pytest.approx([0.25] * 4)


def test_what_takes_placed_clusters_needs_them():
    takes: Any = SimpleNamespace(takes_placed=True, sizes="placed")
    leaves: Any = SimpleNamespace(takes_placed=False, sizes="uniform")
    with pytest.raises(ConfigError, match="no clusters were placed") as error:
        check_placed(problem(None), takes, "here.start")
    assert error.value.where == "here.start"
    check_placed(problem(None), leaves, "here.start")
    check_placed(problem(), takes, "here.start")
