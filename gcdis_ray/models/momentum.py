"""Momentum encoder: a slow copy of a module that gives keys and targets, never gradients."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MomentumEncoder:
    """Exponential moving average of a module's parameters and float buffers, in eval mode.

    Starts as an exact copy. Buffers are averaged too, so that running statistics fit the
    weights; integer buffers are copied. Eval mode keeps batch statistics from leaking which
    crops share a batch.

    Args:
        module: the student.
        momentum: m in theta' <- m theta' + (1 - m) theta, applied once per optimiser step.
    """

    def __init__(self, module: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        ours, theirs = self.module.state_dict(), student.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value.dtype), 1.0 - self.momentum)
            else:
                value.copy_(theirs[name])
