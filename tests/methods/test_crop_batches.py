"""Batches of crops: repeatable, and of the wanted share of labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_discovery import MIXED, Run, make

from gcdis_ray.errors import DataError


def test_batches_depend_on_seed_step_and_part_alone():
    one, two = Run(make(MIXED)).task, Run(make(MIXED)).task
    two.batch(3, 0)
    for step, part in ((0, 0), (0, 1), (5, 1)):
        a, b = one.batch(step, part), two.batch(step, part)
        assert all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], Tensor))
    assert not torch.equal(one.batch(0, 0)["images"], one.batch(1, 0)["images"])


def test_half_of_a_part_is_labeled_and_an_epoch_shows_every_crop():
    task = Run(make(MIXED)).task
    seen = [task.batch(step, part) for step in range(2) for part in (0, 1)]
    assert all(int((part["labels"] >= 0).sum()) == 3 for part in seen)
    free = torch.cat([part["instances"][part["labels"] < 0] for part in seen])
    assert len(set(free.tolist())) == 10  # all unlabeled crops within one pass over them


def test_without_a_crop_there_is_nothing_to_learn():
    with pytest.raises(DataError, match="no crop to learn from"):
        Run(make([]))
