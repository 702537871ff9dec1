"""Builds f_d from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gcdis_ray.methods.discovery_model import DiscoveryModel, build_discovery_model
from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.methods.gcdis.config import ModelConfig
from gcdis_ray.methods.trunk import TrunkSpec, build_encoder
from gcdis_ray.models.encoder import AttentionOf

_OPEN = 3.0  # logit of S, 0.95: trained layers do not know maps that are muted


def attention_of(config: ModelConfig) -> AttentionOf | None:
    """What gates the stages of an encoder, if anything does."""
    if not config.attends:
        return None
    start = 0.0 if config.encoder.body == "resnet" else _OPEN
    return soft_attention(config.attention.pools, config.attention.reduction, start)


def load_discovery_model(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DiscoveryModel:
    """f_d in eval mode from the method's spec and a member of weights, which holds all that has
    learned."""
    trunk = TrunkSpec.model_validate(spec["trunk"])
    config = ModelConfig.model_validate({**spec["model"], "encoder": trunk.encoder})
    encoder = build_encoder(trunk, attention=attention_of(config))
    model = build_discovery_model(encoder, config.heads, int(spec["num_classes"]))
    model.load_state_dict(dict(tensors))
    return model.eval().requires_grad_(False)
