"""Builds f_d from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.methods.gcdis.config import HeadsConfig, ModelConfig
from gcdis_ray.methods.gcdis.network import DiscoveryModel
from gcdis_ray.methods.trunk import TrunkSpec, build_encoder
from gcdis_ray.models.body_encoder import Encoder
from gcdis_ray.models.encoder import AttentionOf
from gcdis_ray.models.heads import CosineClassifier, Projector

_OPEN = 3.0  # logit of S, 0.95: trained layers do not know maps that are muted


def attention_of(config: ModelConfig) -> AttentionOf | None:
    """What gates the stages of an encoder, if anything does."""
    if not config.attends:
        return None
    start = 0.0 if config.encoder.body == "resnet" else _OPEN
    return soft_attention(config.attention.pools, config.attention.reduction, start)


def build_discovery_model(encoder: Encoder, heads: HeadsConfig, num_classes: int) -> DiscoveryModel:
    """f_d on an encoder, its heads with fresh weights from torch's global generator."""
    projector = Projector(
        encoder.num_features,
        heads.projection_hidden,
        heads.projection_dim,
        norm=heads.projection_norm,
    )
    classifier = CosineClassifier(encoder.num_features, num_classes)
    return DiscoveryModel(encoder, projector, classifier, feature_norm=heads.feature_norm)


def load_discovery_model(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DiscoveryModel:
    """f_d in eval mode from the method's spec and a member of weights, which holds all that has
    learned."""
    trunk = TrunkSpec.model_validate(spec["trunk"])
    config = ModelConfig.model_validate({**spec["model"], "encoder": trunk.encoder})
    encoder = build_encoder(trunk, attention=attention_of(config))
    model = build_discovery_model(encoder, config.heads, int(spec["num_classes"]))
    model.load_state_dict(dict(tensors))
    return model.eval().requires_grad_(False)
