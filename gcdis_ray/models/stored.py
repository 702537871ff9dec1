"""How many bytes a model's weights take once stored, without making them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def stored_bytes(build: Callable[[], nn.Module]) -> int:
    """Bytes of the parameters and buffers of what ``build`` gives, built without memory."""
    with torch.device("meta"):
        return module_bytes(build())


def module_bytes(module: nn.Module) -> int:
    """Bytes of its parameters and buffers."""
    tensors = module.state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
