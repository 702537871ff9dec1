"""Builds UNO's network."""

from __future__ import annotations

from gcdis_ray.methods.heads_config import HeadsConfig
from gcdis_ray.methods.uno.config import NovelHeadsConfig
from gcdis_ray.methods.uno.network import NovelHead, UnoNetwork
from gcdis_ray.models.body_encoder import Encoder
from gcdis_ray.models.heads import CosineClassifier, Projector


def build_uno(
    encoder: Encoder,
    heads: HeadsConfig,
    novel: NovelHeadsConfig,
    num_known: int,
    num_outputs: int,
) -> UnoNetwork:
    """On an encoder, with fresh heads from torch's global generator."""
    width, num_novel = encoder.num_features, num_outputs - num_known

    def head(prototypes: int) -> NovelHead:
        projector = Projector(
            width, heads.projection_hidden, heads.projection_dim, norm=heads.projection_norm
        )
        return NovelHead(projector, CosineClassifier(heads.projection_dim, prototypes))

    return UnoNetwork(
        encoder,
        CosineClassifier(width, num_known),
        [head(num_novel) for _ in range(novel.heads)],
        [head(num_novel * novel.over_factor) for _ in range(novel.over_heads)],
        feature_norm=heads.feature_norm,
    )
