"""The curve of a hold-out: when it is measured, what is told, what is kept."""

from __future__ import annotations

from typing import Any

import torch
from toy_discovery import MIXED, AllParts, Crops

from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.hold_out_curve import HoldOutCurve
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts

HELD = HoldOut((0,), (1,))
LABELS = torch.tensor(MIXED)
PARTS = StepParts([0, 1], 2, AllParts())


def made(hold_out: HoldOut | None = HELD) -> HoldOutCurve:
    crops: Any = Crops(MIXED)
    problem = Problem(crops, 2, 4, seed=0, hold_out=hold_out, measure_every=3)
    return HoldOutCurve(problem, LABELS)


def clusters(rows: torch.Tensor) -> torch.Tensor:
    """All hidden crops but crop 3 in one free cluster."""
    assert bool((LABELS[rows] == 0).all())
    return torch.where(rows == 3, 1, 2)


def test_a_point_is_the_accuracy_on_hidden_crops_and_told_once():
    curve = made()
    assert [step for step in range(10) if curve.is_due(step)] == [0, 3, 6, 9]
    curve.measure(3, PARTS, clusters)
    assert curve.at(3) == {"holdout_accuracy": 0.75}  # three of the crops 0, 3, 8, 14
    assert curve.at(4) == {}
    table = curve.members()["holdout_curve"]
    assert table.to_pylist() == [{"step": 3, "accuracy": 0.75}]


def test_state_brings_the_points_back():
    first, second = made(), made()
    first.measure(3, PARTS, clusters)
    second.load_state(first.state())
    second.measure(6, PARTS, clusters)
    assert second.members()["holdout_curve"]["step"].to_pylist() == [3, 6]
    assert first.members()["holdout_curve"]["step"].to_pylist() == [3]


def test_without_a_hold_out_there_is_none():
    curve = made(None)
    assert not any(curve.is_due(step) for step in range(10))
    assert curve.members() == {}
    assert curve.at(3) == {}
