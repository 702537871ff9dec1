"""Which buffers of a module a forward changes: those that the parts of a step have to agree on."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def moving_buffers(module: nn.Module) -> list[Tensor]:
    """Float buffers that may differ from part to part: running statistics, in the order of
    ``module.buffers()``.

    Left out is what stays as it is: statistics of batch norms in eval mode, buffers that are not
    stored (nothing could resume them), and those that a module names in its attribute
    ``constant_buffers``.
    """
    fixed = set[int]()
    for owner in module.modules():
        asleep = isinstance(owner, _BatchNorm) and not owner.training
        names = {*getattr(owner, "constant_buffers", ()), *owner._non_persistent_buffers_set}
        fixed |= {
            id(buffer)
            for name, buffer in owner.named_buffers(recurse=False)
            if asleep or name in names
        }
    return [b for b in module.buffers() if b.is_floating_point() and id(b) not in fixed]
