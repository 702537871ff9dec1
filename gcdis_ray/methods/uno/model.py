"""Builds UNO's network from its config."""

from __future__ import annotations

from gcdis_ray.methods.gcdis.config import ModelConfig
from gcdis_ray.methods.gcdis.model import _build_encoder
from gcdis_ray.methods.uno.config import Config
from gcdis_ray.methods.uno.network import NovelHead, UnoNetwork
from gcdis_ray.models.heads import CosineClassifier, Projector


def build_uno(config: Config, num_known: int, num_outputs: int) -> UnoNetwork:
    """With fresh weights from torch's global generator, its encoder with those of its file."""
    encoder = _build_encoder(
        ModelConfig.model_validate({"encoder": config.encoder, "attention": {"enabled": False}})
    )
    heads, width, num_novel = config.heads, encoder.num_features, num_outputs - num_known

    def head(prototypes: int) -> NovelHead:
        projector = Projector(
            width, heads.projection_hidden, heads.projection_dim, norm=heads.projection_norm
        )
        return NovelHead(projector, CosineClassifier(heads.projection_dim, prototypes))

    return UnoNetwork(
        encoder,
        CosineClassifier(width, num_known),
        [head(num_novel) for _ in range(config.novel.heads)],
        [head(num_novel * config.novel.over_factor) for _ in range(config.novel.over_heads)],
        feature_norm=heads.feature_norm,
    )
