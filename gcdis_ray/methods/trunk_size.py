"""How large a trunk will be, before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.trunk import TrunkSpec, build_encoder
from gcdis_ray.store.artifacts import Size


@dataclass(frozen=True)
class TrunkSize:
    """Args:
    num_features: F of the encoder.
    learning: bytes of what of the encoder learns, stored with every snapshot.
    stored: bytes of weights that are stored once.
    views: bytes of cached views.
    """

    num_features: int
    learning: int
    stored: int = 0
    views: int = 0


def trunk_size(encoder: EncoderConfig, inputs: Mapping[str, Size]) -> TrunkSize:
    """Args:
    inputs: of ``crops`` and, for the body of stage embed, ``embeddings``. By that artifact the body
        is judged: whatever part of it learns, all of it is counted, and vectors for maps.
    """
    views = 2 * inputs["crops"].rows * (1 + encoder.num_cached) if encoder.num_cached else 0
    if encoder.body == "embed":
        told = inputs["embeddings"]
        width = (told.bytes - told.weight_bytes) // (4 * max(told.rows, 1))
        learning = 0 if encoder.learns == "none" else told.weight_bytes
        return TrunkSize(width, learning, told.weight_bytes, views * width)
    if encoder.body == "resnet":
        from gcdis_ray.models.stored import stored_bytes

        spec = TrunkSpec(encoder=encoder, side_px=encoder.side_px or 0, cache_px=0)
        return TrunkSize(encoder.widths[-1], stored_bytes(lambda: build_encoder(spec)))
    return _of_timm(encoder, views)


def _of_timm(encoder: EncoderConfig, views: int) -> TrunkSize:
    import torch

    from gcdis_ray.backbones.frozen import feature_kind
    from gcdis_ray.backbones.network import build_backbone, default_side
    from gcdis_ray.models.stored import module_bytes

    side = encoder.side_px or default_side(encoder.body)
    with torch.device("meta"):
        body = build_backbone(encoder.body, None, side).eval()
        both = feature_kind(body, encoder.features) == "both"
        num_features = body.num_features * (2 if both else 1)
        learning, entering = 0, num_features
        if encoder.learns == "all":
            learning = module_bytes(body)
        elif encoder.learns != "none":
            front, tail = body.split(int(encoder.learns))
            learning = module_bytes(tail)
            entering = front(torch.zeros(1, 3, side, side)).numel()
    return TrunkSize(num_features, learning, module_bytes(body), views * entering)
