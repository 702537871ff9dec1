"""The momentum encoder of a training: its course of momentum, and how it looks at a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.models.momentum import Module, MomentumEncoder, rising_momentum


class Teacher(Generic[Module]):
    """Follows a student and sees the second views of a step as it does, without gradient.

    Args:
        student: its copy starts here.
        momentum: per step, or at the last step if ``start`` is given.
        start: momentum at the first step, rising along a cosine; None: constant.
    """

    def __init__(
        self, student: Module, training: TrainingConfig, momentum: float, start: float | None
    ) -> None:
        self._encoder = MomentumEncoder(student)
        self._training, self._momentum, self._start = training, momentum, start

    @property
    def module(self) -> Module:
        return self._encoder.module

    @torch.no_grad()
    def look(self, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What it says about the view ``second`` of every part."""
        bf16 = self._training.precision == "bf16"
        views: list[Tensor] = [part["second"] for part in parts]
        with torch.autocast(views[0].device.type, torch.bfloat16, enabled=bf16):
            return [self.module(view) for view in views]

    def follow(self, student: nn.Module, step: int) -> None:
        """After the optimiser's ``step`` (from 0)."""
        momentum = self._momentum
        if self._start is not None:
            progress = step / self._training.steps
            momentum = rising_momentum(progress, self._start, self._momentum)
        self._encoder.update(student, momentum)

    def state(self) -> Mapping[str, Any]:
        return self.module.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state)
