"""An encoder with two heads, a projection and a cosine classifier: f_d of GCDIS, SimGCD's network.

Shape letters: N crops, F feature channels, D projection, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from gcdis_ray.methods.heads_config import HeadsConfig
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

    def prototypes(self) -> Tensor:
        """(K, F), unit rows."""
        return self.classifier.prototypes()


def build_discovery_model(encoder: Encoder, heads: HeadsConfig, num_classes: int) -> DiscoveryModel:
    """On an encoder, its heads with fresh weights from torch's global generator."""
    projector = Projector(
        encoder.num_features,
        heads.projection_hidden,
        heads.projection_dim,
        norm=heads.projection_norm,
    )
    classifier = CosineClassifier(encoder.num_features, num_classes)
    return DiscoveryModel(encoder, projector, classifier, feature_norm=heads.feature_norm)
