"""Momentum encoder: a slow copy of a module that gives keys and targets, never gradients."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class MomentumEncoder(Generic[Module]):
    """Exponential moving average of a module's parameters and float buffers, in eval mode.

    Starts as an exact copy. Buffers are averaged too, so that running statistics fit the
    weights; integer buffers are copied. Eval mode keeps batch statistics from leaking which
    crops share a batch.

    Args:
        module: the student.
    """

    def __init__(self, module: Module) -> None:
        self.module: Module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """theta' <- m theta' + (1 - m) theta; once per optimiser step. What the student
        never trains is left alone: it is equal already."""
        self._lie_as(student)
        ours, theirs = self.module.state_dict(), student.state_dict()
        fixed = {name for name, p in student.named_parameters() if not p.requires_grad}
        floats: tuple[list[Tensor], list[Tensor]] = [], []
        for name, value in ours.items():
            if name in fixed:
                continue
            if value.is_floating_point():
                floats[0].append(value)
                floats[1].append(theirs[name].to(value.dtype))
            else:
                value.copy_(theirs[name])
        # one call for all: on a GPU a few kernels instead of one for each of hundreds of tensors
        torch._foreach_lerp_(*floats, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]

    def _lie_as(self, student: nn.Module) -> None:
        """Lay parameters out as the student's, which a strategy may have laid out anew: one call
        for all takes tensors that lie alike."""
        for ours, theirs in zip(self.module.parameters(), student.parameters(), strict=True):
            if ours.stride() != theirs.stride():
                ours.data = torch.empty_like(theirs, dtype=ours.dtype).copy_(ours)


def rising_momentum(progress: float, start: float, end: float) -> float:
    """From ``start`` to ``end`` along half a cosine; progress in [0, 1]."""
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2
