"""Residual backbones with a feature pyramid, from a few channels for a CPU to ResNet-101."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.models.backbones import read_weights
from gcdis_ray.models.mobilenet_body import CHANNELS, MobileNetBody


class SmallResNet(nn.Module):
    """Basic residual blocks; stage ``i`` has stride ``4 * 2**i`` and ``width * 2**i`` channels."""

    def __init__(self, width: int, blocks: tuple[int, ...], norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        channels = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            layers = []
            for block in range(count):
                stride = 2 if block == 0 else 1
                shortcut = (
                    nn.Sequential(nn.Conv2d(channels, out, 1, stride=2, bias=False), norm(out))
                    if block == 0
                    else None
                )
                layers.append(resnet.BasicBlock(channels, out, stride, shortcut, norm_layer=norm))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)  # at most 32 groups, at least of 4


def build_pyramid(config: DetectorConfig, mean: Tensor, std: Tensor) -> nn.Module:
    """Backbone and pyramid: ``forward((B, 3, H, W)) -> {name: (B, fpn_channels, h, w)}``.

    Weights are drawn from torch's generator, or read from ``config.weights``.

    Args:
        mean, std: (3, 1, 1), how the images are normalised, of RGB values in [0, 255].

    Raises:
        ConfigError: the weights file is missing, is not the pinned one or does not fit.
    """
    if config.backbone == "mobilenet_v2":
        mobilenet = MobileNetBody(mean, std)
        if config.weights is not None:
            mobilenet.load(config.weights, str(config.weights_sha256))
        fpn = FeaturePyramidNetwork(list(CHANNELS), config.fpn_channels)
        return nn.Sequential(OrderedDict(body=mobilenet, fpn=fpn))
    norm = FrozenBatchNorm2d if config.norm == "frozen_batch" else _group_norm
    if config.backbone == "small":
        body = SmallResNet(config.width, config.blocks, norm)
        channels = [config.width * 2**i for i in range(len(config.blocks))]
    else:
        body = getattr(resnet, config.backbone)(weights=None, norm_layer=norm)
        body.fc = nn.Identity()
        last = body.inplanes
        channels = [last // 8, last // 4, last // 2, last]
    if config.weights is not None:
        tensors = read_resnet(config.weights, str(config.weights_sha256))
        load_backbone(body, tensors, config.weights)
    stem = ["conv1", "bn1"] if config.frozen_stages else []
    for name in stem + [f"layer{i + 1}" for i in range(config.frozen_stages)]:
        if hasattr(body, name):
            getattr(body, name).requires_grad_(False)
    return_layers = {f"layer{i + 1}": str(i) for i in range(len(channels))}
    backbone = BackboneWithFPN(body, return_layers, channels, config.fpn_channels)
    if config.backbone == "small":
        backbone.fpn.extra_blocks = None  # torchvision would add a pooled level
    return backbone


def read_resnet(path: str, sha256: str) -> dict[str, Tensor]:
    """Tensors of a ResNet in torchvision's names, without its classifier."""
    tensors = read_weights(Path(path), sha256)
    return {name: value for name, value in tensors.items() if not name.startswith("fc.")}


def load_backbone(body: nn.Module, tensors: Mapping[str, Tensor], path: str) -> None:
    """Load all of a backbone's tensors, or say in a ConfigError why they do not fit."""
    try:
        body.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(
            f"{path} does not fit the backbone: {str(error).splitlines()[1].strip()[:200]}",
            where="detector.weights",
            fix="match detector.backbone and detector.norm to the file",
        ) from error
