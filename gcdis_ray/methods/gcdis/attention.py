"""Soft attention module (SAM) of GCDIS: a learned map that mutes what is not the object.

Shape letters: N crops, C channels, R reduced channels (C / reduction), H W pixels of the map,
T pooled tokens (sum of the squared pooled sizes), S pooled scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.models.folding import ConvNorm


def pooled_sizes(base: Sequence[int], stage: int) -> tuple[int, ...]:
    """Sides of the pooled grids at ``stage`` (0 = first): the base halved per stage, at least 1.

    Halves round to even, as published: base (18, 12, 8) gives (9, 6, 4), (4, 3, 2), (2, 2, 1).
    """
    return tuple(max(1, round(side / 2**stage)) for side in base)


def soft_attention(
    pools: Sequence[int], reduction: int, start: float = 0.0
) -> Callable[[int, int], SoftAttention]:
    """How an encoder makes the module after a stage, from the stage and its channels.

    Args:
        pools: sides of the pooled grids in the first stage, halved per stage.
        reduction, start: as in :class:`SoftAttention`.
    """
    return lambda stage, channels: SoftAttention(
        channels, pooled_sizes(pools, stage), reduction, start
    )


class SoftAttention(nn.Module):
    """O = S * F with S = sigmoid(nu([A, G])), GCDIS eq. for SAM.

    Theta_TR: a 1x1 convolution of the map pooled to each scale; Phi_RP: a 1x1 convolution of the
    map itself (P = H W pixels); A_TP = Theta Phi is their affinity and G_P a channel mean. nu is a
    1x1 convolution (T + 1 -> 1, no bias) with batch norm. Because nu is linear before its norm,
    nu(A)_p = (sum_t nu_t Theta_t) . Phi_p: one R-vector a crop replaces the whole affinity.

    The scale of nu's norm starts at 0, so that S starts the same everywhere, at 1/2. The published
    code starts it at 1: then a random nu gives S any value from 0.1 to 0.9, the product over the
    stages mutes parts of every crop at random, and short trainings do not get over it
    (docs/ablation.md).

    Args:
        channels: C of the incoming map.
        sizes: sides of the pooled grids; any size works on any map (adaptive pooling).
        reduction: C over R.
        start: logit of S at the start.
    """

    def __init__(
        self, channels: int, sizes: Sequence[int], reduction: int = 8, start: float = 0.0
    ) -> None:
        super().__init__()
        reduced = max(1, channels // reduction)
        self.sizes = tuple(sizes)
        self.theta = nn.ModuleList(Embedding(channels, reduced) for _ in self.sizes)
        self.phi = Embedding(channels, reduced)
        self.gate = Embedding(channels, channels)
        tokens = sum(side * side for side in self.sizes)
        self.nu = nn.Parameter(torch.empty(tokens + 1))
        nn.init.normal_(self.nu, std=(tokens + 1) ** -0.5)
        self.norm = nn.BatchNorm2d(1)
        nn.init.zeros_(self.norm.weight)  # S is even until it has learned where
        nn.init.constant_(self.norm.bias, start)

    def tokens(self, map_NCHW: Tensor) -> Tensor:
        """Theta: (N, T, R)."""
        rows = [
            theta(F.adaptive_avg_pool2d(map_NCHW, side)).flatten(2)
            for side, theta in zip(self.sizes, self.theta, strict=True)
        ]
        return torch.cat(rows, dim=2).transpose(1, 2)

    def forward(self, map_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the attended map (N, C, H, W) and the saliency S (N, 1, H, W) in (0, 1)."""
        summary_NR = torch.einsum("t,ntr->nr", self.nu[:-1], self.tokens(map_NCHW))
        affinity_NHW = torch.einsum("nr,nrhw->nhw", summary_NR, self.phi(map_NCHW))
        gate_NHW = self.gate(map_NCHW).mean(dim=1)
        mixed_N1HW = (affinity_NHW + self.nu[-1] * gate_NHW).unsqueeze(1)
        saliency_N1HW = torch.sigmoid(self.norm(mixed_N1HW))
        return saliency_N1HW * map_NCHW, saliency_N1HW


class Embedding(ConvNorm):
    """1x1 convolution, norm, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 1, bias=False))

    def forward(self, map_NCHW: Tensor) -> Tensor:
        return F.relu(super().forward(map_NCHW), inplace=True)
