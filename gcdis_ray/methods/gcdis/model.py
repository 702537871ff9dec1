"""Builds f_d from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.methods.gcdis.config import ModelConfig
from gcdis_ray.methods.gcdis.network import DiscoveryModel, Encoder
from gcdis_ray.models.encoder import ResNetEncoder
from gcdis_ray.models.heads import CosineClassifier, Projector
from gcdis_ray.models.mobilenet_encoder import MobileNetEncoder

_OPEN = 3.0  # logit of S, 0.95: trained layers do not know maps that are muted


def build_discovery_model(config: ModelConfig, num_classes: int) -> DiscoveryModel:
    """f_d with fresh weights from torch's global generator, its encoder with those of its file.

    Raises:
        ConfigError: the encoder's weights file is missing, is not the pinned one or does not fit.
    """
    encoder = _build_encoder(config)
    if config.encoder.weights is not None:
        encoder.load(config.encoder.weights, str(config.encoder.weights_sha256))
    heads = config.heads
    projector = Projector(
        encoder.num_features,
        heads.projection_hidden,
        heads.projection_dim,
        norm=heads.projection_norm,
    )
    classifier = CosineClassifier(encoder.num_features, num_classes)
    return DiscoveryModel(encoder, projector, classifier, feature_norm=heads.feature_norm)


def _build_encoder(config: ModelConfig) -> Encoder:
    settings, attention = config.encoder, config.attention
    trained = settings.body == "mobilenet_v2"
    gates = None
    if attention.enabled:
        gates = soft_attention(attention.pools, attention.reduction, _OPEN if trained else 0.0)
    if trained:
        return MobileNetEncoder(frozen=settings.frozen, attention=gates)
    return ResNetEncoder(
        block=settings.block,
        blocks=settings.blocks,
        widths=settings.widths,
        stem_width=settings.stem_width,
        stem_kernel=settings.stem_kernel,
        stem_stride=settings.stem_stride,
        stem_pool=settings.stem_pool,
        channels=4 if settings.mask_input else 3,
        attention=gates,
    )


def load_discovery_model(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DiscoveryModel:
    """f_d in eval mode from the method's spec and a member of weights, which holds all of them."""
    config = ModelConfig(**spec["model"]).starting_at(None)
    model = build_discovery_model(config, int(spec["num_classes"]))
    model.load_state_dict(dict(tensors))
    return model.eval().requires_grad_(False)
