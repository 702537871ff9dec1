"""What a student says before its step: the step's own numbers, and no trace."""

from __future__ import annotations

import torch
from torch import nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.look_ahead import look_ahead


def test_it_sees_what_the_step_will_see_and_leaves_no_trace():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    views = [torch.randn(5, 3), torch.randn(5, 3)]
    seen = look_ahead(module, module, views, TrainingConfig())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(rows.requires_grad for rows in seen)
    for view, rows in zip(views, seen, strict=True):
        assert torch.equal(module(view), rows)  # statistics of the batch, as in training


def test_precision_is_that_of_the_training():
    module = nn.Linear(3, 4)
    (rows,) = look_ahead(module, module, [torch.randn(2, 3)], TrainingConfig(precision="bf16"))
    assert rows.dtype == torch.bfloat16
