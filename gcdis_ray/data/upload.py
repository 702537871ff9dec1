"""Bytes of images on their way to where they are computed with."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """``values`` of the CPU on ``device``. To a GPU they go through pinned memory, in the
    background: the host can decode more meanwhile."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
