"""What a student says before its step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig

Seen = TypeVar("Seen")


@torch.no_grad()
def look_ahead(
    module: nn.Module,
    look: Callable[[Tensor], Seen],
    views: Sequence[Tensor],
    training: TrainingConfig,
) -> list[Seen]:
    """What ``look`` sees of the views of every part: the numbers that the step itself will see,
    without gradient, and without a trace in the running statistics of ``module``.

    Args:
        look: runs ``module`` or a part of it.
    """
    buffers = list(module.buffers())
    before = [buffer.clone() for buffer in buffers]
    bf16, seen = training.precision == "bf16", []
    for view in views:
        with torch.autocast(view.device.type, torch.bfloat16, enabled=bf16):
            seen.append(look(view))
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
    return seen
