"""UNO's network: a head for known classes, and several that each know all novel ones.

Shape letters: N crops, F features, D projection, H heads, O over-clustering heads, K outputs, L
known ones, J outputs of an over-clustering head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gcdis_ray.methods.discovery_model import Discovered
from gcdis_ray.models.body_encoder import Encoder
from gcdis_ray.models.heads import CosineClassifier, Projector

_FORGET = 0.02  # of the running losses by which heads are told apart, per step


class NovelHead(nn.Module):
    """A projection and prototypes of its own."""

    def __init__(self, projector: Projector, classifier: CosineClassifier) -> None:
        super().__init__()
        self.projector, self.classifier = projector, classifier

    def forward(self, features_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (N, D) and cosines with its prototypes."""
        projections_ND = self.projector(features_NF)
        return projections_ND, self.classifier(projections_ND)


class Headed(NamedTuple):
    """What every head says about crops: cosines, those of known outputs first."""

    cosines_NHK: Tensor
    over_NOJ: Tensor


class UnoNetwork(nn.Module):
    """Encoder, cosine classifier of known classes on its features, and heads for novel ones.

    Args:
        feature_norm: batch norm (without scale and shift) on the encoder's features.
    """

    head_losses: Tensor

    def __init__(
        self,
        encoder: Encoder,
        known: CosineClassifier,
        heads: list[NovelHead],
        over_heads: list[NovelHead],
        *,
        feature_norm: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.known = encoder, known
        self.heads, self.over_heads = nn.ModuleList(heads), nn.ModuleList(over_heads)
        width = encoder.num_features
        self.norm = nn.BatchNorm1d(width, affine=False) if feature_norm else nn.Identity()
        self.register_buffer("head_losses", torch.zeros(len(heads)))

    def headed(self, images: Tensor) -> Headed:
        """For training: all heads."""
        features_NF = self.norm(self.encoder(images)[0])
        known_NL = self.known(features_NF)

        def beside(heads: nn.ModuleList) -> Tensor:
            found = [torch.cat([known_NL, head(features_NF)[1]], dim=1) for head in heads]
            return torch.stack(found, dim=1) if found else known_NL.new_zeros(len(known_NL), 0, 0)

        return Headed(beside(self.heads), beside(self.over_heads))

    def forward(self, images: Tensor) -> Discovered:
        """By the best head."""
        features_NF, saliencies = self.encoder(images)
        features_NF = self.norm(features_NF)
        projections_ND, novel = self.best()(features_NF)
        cosines_NK = torch.cat([self.known(features_NF), novel], dim=1)
        return Discovered(features_NF, projections_ND, cosines_NK, saliencies)

    def best(self) -> NovelHead:
        """The head whose loss has been lowest lately."""
        head = self.heads[int(self.head_losses.argmin())]
        assert isinstance(head, NovelHead)
        return head

    def note(self, loss_H: Tensor) -> None:
        """A step's loss of each head."""
        self.head_losses.lerp_(loss_H.detach().to(self.head_losses), _FORGET)

    def prototypes(self) -> Tensor:
        """(K, F + D) unit rows, of the best head: known ones are directions of features, novel ones
        of projections, so that one has nothing to do with the other."""
        return torch.block_diag(self.known.prototypes(), self.best().classifier.prototypes())
