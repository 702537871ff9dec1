"""What becomes of a network's batch norms where batches are small."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torch.nn import functional as F


def has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


class FrozenBatchNorm(nn.Module):
    """A batch norm whose statistics, scale and shift stay as they are.

    On a GPU one kernel does it, and the map keeps its precision. On a CPU a map of 16 bits becomes
    one of 32, as scale and shift are.
    """

    constant_buffers = ("weight", "bias", "running_mean", "running_var")
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.eps = 1e-5
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> FrozenBatchNorm:
        """The same as ``norm`` in eval mode, an activation in it included."""
        frozen = cls(norm.num_features)
        frozen.eps = norm.eps
        for name in cls.constant_buffers:
            if (value := getattr(norm, name)) is not None:
                setattr(frozen, name, value.detach().clone())
        if isinstance(norm, BatchNormAct2d):
            frozen.drop, frozen.act = norm.get_submodule("drop"), norm.get_submodule("act")
        return frozen

    def forward(self, map_NCHW: Tensor) -> Tensor:
        return self.act(self.drop(self._normed(map_NCHW)))

    def _normed(self, map_NCHW: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        if map_NCHW.device.type != "cpu":
            return F.batch_norm(map_NCHW, *statistics, self.weight, self.bias, eps=self.eps)
        scale_C = self.weight * (self.running_var + self.eps).rsqrt()
        shift_C = self.bias - self.running_mean * scale_C
        return map_NCHW * scale_C.view(1, -1, 1, 1) + shift_C.view(1, -1, 1, 1)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a batch norm that was not frozen
        super()._load_from_state_dict(state_dict, prefix, *others)


def frozen_batch_norm(net: nn.Module) -> None:
    """Put a frozen one in place of every batch norm."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, FrozenBatchNorm.of(module))


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups, at least of 4 channels."""
    return nn.GroupNorm(_groups(channels), channels)


def use_group_norm(net: nn.Module) -> None:
    """Put a group norm in place of every batch norm; activations stay."""
    for name, module in list(net.named_modules()):
        if not isinstance(module, nn.BatchNorm2d):
            continue
        channels = module.num_features
        new: nn.Module = group_norm(channels)
        if isinstance(module, BatchNormAct2d):
            new = GroupNormAct(channels, _groups(channels), apply_act=False)
            new.drop, new.act = module.get_submodule("drop"), module.get_submodule("act")
        parent, _, child = name.rpartition(".")
        setattr(net.get_submodule(parent), child, new)


def _groups(channels: int) -> int:
    return math.gcd(32, max(channels // 4, 1))
