"""The teacher's course of momentum, its second views, its state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.teacher import Teacher
from gcdis_ray.models.momentum import rising_momentum

TRAINING = TrainingConfig(steps=10)


@pytest.mark.parametrize("start", [None, 0.2])
def test_momentum_is_constant_or_rises(start: float | None):
    student = nn.Linear(3, 2)
    teacher = Teacher(student, TRAINING, 0.9, start)
    for step in (0, 4, 9):
        before = teacher.module.weight.clone()
        with torch.no_grad():
            student.weight.add_(1.0)
        teacher.follow(student, step)
        momentum = 0.9 if start is None else rising_momentum(step / 10, start, 0.9)
        expected = momentum * before + (1 - momentum) * student.weight
        torch.testing.assert_close(teacher.module.weight, expected)


def test_it_looks_at_second_views_and_learns_nothing():
    teacher = Teacher(nn.Linear(3, 2), TRAINING, 0.9, None)
    parts = [{"images": torch.zeros(4, 3), "second": torch.rand(4, 3)} for _ in range(2)]
    for part, found in zip(parts, teacher.look(parts), strict=True):
        torch.testing.assert_close(found, teacher.module(part["second"]))
        assert not found.requires_grad


def test_state_brings_it_back():
    first, second = (Teacher(nn.Linear(3, 2), TRAINING, 0.9, None) for _ in range(2))
    assert not torch.equal(first.module.weight, second.module.weight)
    second.load_state(first.state())
    assert torch.equal(first.module.weight, second.module.weight)
