"""The discovery model f_d: an encoder and its two heads.

Shape letters: N crops, F feature channels, D projection, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from gcdis_ray.models.body_encoder import Encoder
from gcdis_ray.models.heads import CosineClassifier, Projector


class Discovered(NamedTuple):
    """What the discovery model says about crops."""

    features_NF: Tensor
    projections_ND: Tensor  # L2-normalised
    cosines_NK: Tensor  # class logits before division by the softmax temperature
    saliencies: list[Tensor]  # per attended stage (N, 1, H, W)


class DiscoveryModel(nn.Module):
    """f_d of GCDIS: encoder b, projection g and cosine classifier.

    Args:
        feature_norm: batch norm (without scale and shift) on the encoder's features. Pooled
            features are positive, so all cosines start near 1; centred ones spread over the
            sphere. The paper has none.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: Projector,
        classifier: CosineClassifier,
        *,
        feature_norm: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.classifier = encoder, projector, classifier
        width = encoder.num_features
        self.norm = nn.BatchNorm1d(width, affine=False) if feature_norm else nn.Identity()

    def forward(self, seen: Tensor) -> Discovered:
        """Args: seen: what a trunk's views show of N crops."""
        features_NF, saliencies = self.encoder(seen)
        features_NF = self.norm(features_NF)
        return Discovered(
            features_NF, self.projector(features_NF), self.classifier(features_NF), saliencies
        )
