"""A network whose crops are rows of numbers, to try losses on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcdis_ray.methods.discovery_model import DiscoveryModel
from gcdis_ray.models.heads import CosineClassifier, Projector


class Rows(nn.Module):
    """An encoder whose features are its input."""

    attended: tuple[int, ...] = ()

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, rows_NF: Tensor) -> tuple[Tensor, list[Tensor]]:
        return rows_NF, []


def row_model(num_features: int, num_classes: int, *, norm: bool = False) -> DiscoveryModel:
    torch.manual_seed(3)
    return DiscoveryModel(
        Rows(num_features),  # pyright: ignore[reportArgumentType]
        Projector(num_features, 8, 4, norm=norm),
        CosineClassifier(num_features, num_classes),
        feature_norm=norm,
    )
