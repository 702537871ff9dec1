"""How crops become vectors of the frozen embeddings.

Stage embed does it once for all crops it knows; a method that works on embeddings does it again for
crops that are new, with what it has kept: the same function of the same spec and weights.

Shape letters: N crops, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from gcdis_ray.data.crops.crop_store import decode_crops
from gcdis_ray.data.upload import upload
from gcdis_ray.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.backbones.frozen import FrozenBackbone

EmbedCrops = Callable[[pa.Table], NDArray[np.float32]]
_BATCH = 64  # fixed: sums inside a convolution may depend on it


def open_embedding(
    spec: Mapping[str, Any], weights: Mapping[str, Tensor] | None, device: str
) -> EmbedCrops:
    """Args:
        spec: document ``embed_spec``: ``backbone``, ``input_px``, ``use_mask``; of a network of
            timm ``features``; of backbone ``proposer`` ``detector``, its spec.
        weights: of the backbone; None for one that has none.

    Returns:
        a function of crops (columns ``jpeg``, ``mask_png``) that gives their unit vectors, (N, D)
        float32. Where there is no crop, D is 1.

    Raises:
        ArtifactError: the weights are missing.
    """
    backbone, place = open_backbone(spec, weights, device), torch.device(device)

    def embed(crops: pa.Table) -> NDArray[np.float32]:
        parts = []
        for start in range(0, crops.num_rows, _BATCH):
            batch = crops.slice(start, _BATCH)
            images, masks = decode_crops(
                batch["jpeg"].to_pylist(), batch["mask_png"].to_pylist(), spec["input_px"]
            )
            seen = upload(masks, place) if spec["use_mask"] else None
            parts.append(backbone(upload(images, place), seen))
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1), np.float32)

    return embed


def open_backbone(
    spec: Mapping[str, Any], weights: Mapping[str, Tensor] | None, device: str
) -> FrozenBackbone:
    """What embeds, in evaluation mode; arguments and errors as of :func:`open_embedding`."""
    from gcdis_ray.backbones.frozen import NetworkFeatures, PyramidFeatures
    from gcdis_ray.backbones.wavelet import Wavelet

    if spec["backbone"] == "wavelet":
        return Wavelet().to(device).eval()
    if weights is None:
        raise ArtifactError(
            f"the weights of backbone {spec['backbone']} are gone", where="backbone"
        )
    if spec["backbone"] == "proposer":
        from gcdis_ray.instances.inference import open_detector

        return PyramidFeatures(open_detector(weights, spec["detector"], device).pyramid)
    from gcdis_ray.backbones.network import build_backbone

    network = build_backbone(spec["backbone"], weights, spec["input_px"])
    return NetworkFeatures(network, spec["features"]).to(device).eval()
