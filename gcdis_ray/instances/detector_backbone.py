"""Backbones with a feature pyramid: residual blocks of a few channels, or a network of timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from gcdis_ray.backbones.backbone import Backbone
from gcdis_ray.backbones.config import BackboneConfig
from gcdis_ray.backbones.network import TIMM_RAISES, build_backbone, check_parts, read_weights
from gcdis_ray.backbones.norms import (
    FrozenBatchNorm,
    frozen_batch_norm,
    group_norm,
    has_batch_norm,
    use_group_norm,
)
from gcdis_ray.backbones.pyramid import PyramidMaps
from gcdis_ray.backbones.weights import read_tensors
from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_config import DetectorConfig

_TRIED_PX = 64


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


class TimmPyramid(nn.Module):
    """A network of timm under a feature pyramid of levels ``0`` to ``3``, and perhaps ``pool``.

    Group norm in the pyramid, as in Wu and He (2018): maps of pretrained networks differ in scale
    from network to network and from stage to stage. Those of EfficientNet-Lite0 have deviations of
    2 to 10 (its blocks end without an activation); heads that met them bare lost their masks in the
    first steps, and did not recover.

    Args:
        maps: of the network.
        fpn_channels: of every level.
        pooled: whether there is a level above the network's.
        mean, std: (3, 1, 1), the normalisation of the images given, of RGB values in [0, 255]. The
            network has its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, maps: PyramidMaps, fpn_channels: int, pooled: bool, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__()
        self.body = maps
        top = LastLevelMaxPool() if pooled else None
        self.fpn = FeaturePyramidNetwork(list(maps.channels), fpn_channels, top, group_norm)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images_N3HW: Tensor) -> dict[str, Tensor]:
        maps = self.body((images_N3HW * self.std + self.mean) / 255)
        return self.fpn({str(level): found for level, found in enumerate(maps)})


def build_pyramid(config: DetectorConfig, mean: Tensor, std: Tensor) -> nn.Module:
    """Backbone and pyramid: ``forward((B, 3, H, W)) -> {name: (B, fpn_channels, h, w)}``.

    Weights are drawn from torch's generator, or read from ``config.weights``. What learns at
    another rate than the rest says so by its attribute ``lr_share``.

    Args:
        mean, std: (3, 1, 1), how the images are normalised, of RGB values in [0, 255].

    Raises:
        ConfigError: the weights file is missing, is not the pinned one or does not fit; the network
            cannot be a detector's.
    """
    body = config.body()
    return _small(config) if body is None else _of_timm(config, body, mean, std)


def check_body(config: DetectorConfig, where: str) -> None:
    """What has to hold before a detector is trained.

    Args:
        where: key of the detector's section, for errors.

    Raises:
        ConfigError: see :func:`build_pyramid`.
    """
    body = config.body()
    if body is None:
        if config.weights is not None:
            read_plain(config)
        return
    body.check(where)
    fresh = body.model_copy(update={"weights": None})
    try:
        with torch.device("meta"):
            pyramid = _of_timm(config, fresh, *torch.ones(2, 3, 1, 1))
            pyramid(torch.zeros(1, 3, _TRIED_PX, _TRIED_PX))
        if pyramid.body.simple is None:
            check_parts(body.model, None)
    except TIMM_RAISES as error:
        raise ConfigError(
            f"backbone {body.model} gives no maps of images of many sides ({str(error)[:120]})",
            where=f"{where}.backbone",
            fix="use another network, such as resnet50",
        ) from error
    except ConfigError as error:
        raise error.at(f"{where}.backbone") from error
    if body.weights is not None and config.norm != "frozen_batch":
        with torch.device("meta"):
            _check_norm(build_backbone(body.model, None, None), where)


def _of_timm(
    config: DetectorConfig, body: BackboneConfig, mean: Tensor, std: Tensor
) -> TimmPyramid:
    tensors = read_weights(body) if body.weights is not None else None
    network = build_backbone(body.model, tensors, None)
    if config.norm == "frozen_batch":
        frozen_batch_norm(network.net)
    elif tensors is not None:
        _check_norm(network, "detector")
    else:
        use_group_norm(network.net)
    network.freeze(config.frozen_stages)
    pyramid = TimmPyramid(
        PyramidMaps(network), config.fpn_channels, config.num_levels == 5, mean, std
    )
    network.lr_share = config.backbone_lr  # pyright: ignore[reportArgumentType]
    return pyramid


def _check_norm(network: Backbone, where: str) -> None:
    if has_batch_norm(network.net):
        raise ConfigError(
            f"the weights of {network.name} come with batch statistics",
            where=f"{where}.norm",
            fix="use norm: frozen_batch",
        )


def _small(config: DetectorConfig) -> BackboneWithFPN:
    norm = FrozenBatchNorm if config.norm == "frozen_batch" else group_norm
    body = SmallResNet(config.width, config.blocks, norm)
    channels = [config.width * 2**i for i in range(len(config.blocks))]
    if config.weights is not None:
        load_backbone(body, read_plain(config), config.weights)
    stem = ["conv1", "bn1"] if config.frozen_stages else []
    for name in stem + [f"layer{i + 1}" for i in range(config.frozen_stages)]:
        if hasattr(body, name):
            getattr(body, name).requires_grad_(False)
    return_layers = {f"layer{i + 1}": str(i) for i in range(len(channels))}
    pyramid = BackboneWithFPN(body, return_layers, channels, config.fpn_channels)
    pyramid.fpn.extra_blocks = None  # torchvision would add a pooled level
    pyramid.body.lr_share = config.backbone_lr  # pyright: ignore[reportArgumentType]
    return pyramid


def read_plain(config: DetectorConfig) -> dict[str, Tensor]:
    """Tensors of a body that is not timm's, in the names of its file, without a classifier ``fc``.

    Raises:
        ConfigError: no such file, no SHA-256 or another one, or not a file of tensors.
    """
    named = {"model": config.backbone, "weights": config.weights, "sha256": config.weights_sha256}
    file = BackboneConfig.model_validate(named)
    tensors = read_tensors(file.read_bytes(), str(config.weights))
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
