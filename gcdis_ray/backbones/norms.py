"""What becomes of a network's batch norms where batches are small."""

from __future__ import annotations

import math

from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, freeze_batch_norm_2d
from torch import nn


def has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def frozen_batch_norm(net: nn.Module) -> nn.Module:
    """The network with statistics, scales and shifts as they are, for good."""
    return freeze_batch_norm_2d(net)


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
