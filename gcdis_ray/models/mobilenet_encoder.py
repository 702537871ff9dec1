"""MobileNetV2 with trained weights as encoder, frozen or fine-tuned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.models.encoder import AttentionOf
from gcdis_ray.models.mobilenet_body import CHANNELS, TOP_CHANNELS, MobileNetBody


class MobileNetEncoder(nn.Module):
    """Crop -> feature vector (1280) and saliency maps, as
    :class:`~gcdis_ray.models.encoder.ResNetEncoder`; stages have stride 4, 8, 16 and 32 px.

    Args:
        frozen: keep the body as loaded. Then attention follows the last stage only: its
            gradient would have to pass the frozen layers after it, and these know no gated maps.
        attention: makes the gate after a stage; None: none. A gate should start open: trained
            layers do not know maps that are muted.
    """

    def __init__(self, *, frozen: bool, attention: AttentionOf | None = None) -> None:
        super().__init__()
        mean, std = (255 * torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.body = MobileNetBody(mean, std, trainable=not frozen, top=True)
        self.num_features = TOP_CHANNELS
        stages = range(len(CHANNELS))
        self.attended = tuple(stages[-1:] if frozen else stages) if attention else ()
        self.attention = nn.ModuleDict(
            {str(k): attention(k, CHANNELS[k]) for k in self.attended if attention}
        )

    def load(self, path: str, sha256: str) -> None:
        """Start at the weights of a file; raises ConfigError as :meth:`MobileNetBody.load`."""
        self.body.load(path, sha256)

    def forward(self, images_N3HW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args: images normalised by ImageNet's statistics. Returns features (N, 1280) and the
        saliencies of the stages ``attended``, each (N, 1, H, W)."""
        saliencies: list[Tensor] = []

        def gate(stage: int, map_NCHW: Tensor) -> Tensor:
            if stage not in self.attended:
                return map_NCHW
            out, saliency = self.attention[str(stage)](map_NCHW)
            saliencies.append(saliency)
            return out

        top_NCHW = self.body(images_N3HW, gate)["top"]
        return torch.flatten(F.adaptive_avg_pool2d(top_NCHW, 1), 1), saliencies
