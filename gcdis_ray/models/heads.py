"""Heads on an encoder's features: a projection and a cosine classifier.

Shape letters: N crops, F feature channels, D projection, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Sequential):
    """MLP F -> hidden -> hidden -> D with GELU; its output is L2-normalised.

    Weights start with deviation 1 / sqrt(inputs): the usual 0.02 at the paper's 2048, and the same
    scale of activations at any width.

    Args:
        norm: batch norm after each hidden layer: small encoders from scratch learn faster. The
            paper has none.
    """

    def __init__(self, num_features: int, hidden: int, dim: int, *, norm: bool) -> None:
        layers: list[nn.Module] = []
        for width in (num_features, hidden):
            layers += [nn.Linear(width, hidden), *([nn.BatchNorm1d(hidden)] if norm else [])]
            layers.append(nn.GELU())
        super().__init__(*layers, nn.Linear(hidden, dim))
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)

    def forward(self, features_NF: Tensor) -> Tensor:
        return F.normalize(at_least_fp32(super().forward(features_NF)), dim=1)


class CosineClassifier(nn.Module):
    """Cosines between features and one unit prototype per class; known classes come first.

    The prototypes are ``normalize(weight + offset)``. ``offset`` is zero until
    :meth:`place`, which moves prototypes without touching the parameters: an optimiser that keeps
    its own copy of them (ZeRO) would undo a direct write.
    """

    offset: Tensor
    constant_buffers = ("offset",)  # to a training: no forward changes it

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, num_features), dim=1))
        self.register_buffer("offset", torch.zeros(num_classes, num_features))

    def prototypes(self) -> Tensor:
        """(K, F), unit rows."""
        return F.normalize(self.weight + self.offset, dim=1)

    @torch.no_grad()
    def place(self, prototypes_KF: Tensor) -> None:
        """Set all prototypes."""
        self.offset.copy_(F.normalize(prototypes_KF, dim=1) - self.weight)

    def forward(self, features_NF: Tensor) -> Tensor:
        """Cosines in [-1, 1], (N, K); never less than fp32: a temperature will divide them."""
        with torch.autocast(features_NF.device.type, enabled=False):
            return F.normalize(at_least_fp32(features_NF), dim=1) @ self.prototypes().T


def at_least_fp32(values: Tensor) -> Tensor:
    """The same, or in fp32 if it was less."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
