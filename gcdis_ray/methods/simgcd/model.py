"""Builds SimGCD's network."""

from __future__ import annotations

from gcdis_ray.methods.gcdis.config import HeadsConfig
from gcdis_ray.methods.gcdis.network import DiscoveryModel
from gcdis_ray.models.body_encoder import Encoder
from gcdis_ray.models.heads import CosineClassifier, Projector


def build_simgcd(encoder: Encoder, heads: HeadsConfig, num_outputs: int) -> DiscoveryModel:
    """On an encoder, with fresh heads from torch's global generator."""
    projector = Projector(
        encoder.num_features,
        heads.projection_hidden,
        heads.projection_dim,
        norm=heads.projection_norm,
    )
    classifier = CosineClassifier(encoder.num_features, num_outputs)
    return DiscoveryModel(encoder, projector, classifier, feature_norm=heads.feature_norm)
