"""MobileNetV2 with folded batch norm, as weights files in torchvision's layout give it."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from gcdis_ray.backbones.frozen import FrozenBackbone
from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.backbones.pooling import pool
from gcdis_ray.backbones.weights_file import read_pinned
from gcdis_ray.errors import ConfigError

# expansion, channels, blocks, stride of each group of inverted residuals (Sandler et al. 2018)
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


# ---------------------------------------------------------------- with the user's weights


class MobileNetV2(FrozenBackbone):
    """MobileNetV2 1.0 with batch norm folded into its convolutions. 1280 features.

    Args:
        layers: name -> (weight, bias), folded.
        same_padding: TensorFlow's SAME padding, which is uneven at stride 2.
        mean, std: of the RGB values in [0, 1] the weights were trained on.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Mapping[str, tuple[Tensor, Tensor]],
        same_padding: bool,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self._same = same_padding
        for name, (weight, bias) in layers.items():
            self.register_buffer(_key(name, "weight"), weight, persistent=False)
            self.register_buffer(_key(name, "bias"), bias, persistent=False)
        _register_normalisation(self, mean, std)

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution."""
        return self.get_buffer(_key(name, "weight")), self.get_buffer(_key(name, "bias"))

    def features(self, images_N3HW: Tensor, masks_N1HW: Tensor | None) -> Tensor:
        return pool(self.map(images_N3HW), masks_N1HW)

    def map(self, images_N3HW: Tensor) -> Tensor:
        """Last feature map, (N, 1280, H / 32, W / 32), of images in [0, 1]."""
        x = self._conv("features.0.0", (images_N3HW - self.mean) / self.std, stride=2)
        block = 1
        for expansion, channels, repeats, first_stride in INVERTED_RESIDUALS:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                x = self._inverted_residual(f"features.{block}", x, expansion, channels, stride)
                block += 1
        return self._conv("features.18.0", x)

    def _inverted_residual(
        self, name: str, x: Tensor, expansion: int, channels: int, stride: int
    ) -> Tensor:
        y, part = x, 0
        if expansion > 1:
            y, part = self._conv(f"{name}.conv.0.0", y), 1
        y = self._conv(f"{name}.conv.{part}.0", y, stride=stride, groups=y.shape[1])
        y = self._conv(f"{name}.conv.{part + 1}", y, relu=False)
        return x + y if stride == 1 and x.shape[1] == channels else y

    def _conv(
        self, name: str, x: Tensor, *, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> Tensor:
        weight, bias = self.layer(name)
        kernel = weight.shape[-1]
        if self._same:
            x = F.pad(x, same_padding(x, kernel, stride))
        padding = 0 if self._same else kernel // 2
        y = F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)
        return F.relu6(y) if relu else y


def _key(layer: str, kind: str) -> str:
    """A buffer's name has no dots."""
    return f"{layer}.{kind}".replace(".", "_")


def _register_normalisation(
    net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    net.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
    net.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)


def same_padding(map_NCHW: Tensor, kernel: int, stride: int) -> list[int]:
    """TensorFlow's SAME padding of a map, as ``F.pad`` wants it: left, right, above, below."""
    pads = [
        max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        for size in (map_NCHW.shape[3], map_NCHW.shape[2])
    ]
    return [p for pad in pads for p in (pad // 2, pad - pad // 2)]


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` or ``.npz`` file; nothing in it can run code.

    Args:
        sha256: refuse any other file.

    Raises:
        ConfigError: missing, another file than pinned, or not of these formats.
    """
    data = read_pinned(path, sha256)
    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"neither safetensors nor npz without objects ({error})", where=str(path)
        ) from error


def build_backbone(
    name: str, weights: Mapping[str, Tensor], where: str = "weights"
) -> FrozenBackbone:
    """A frozen MobileNetV2 in evaluation mode.

    Raises:
        ConfigError: weights do not fit.
    """
    try:
        if any(key.endswith(".weight_int8") for key in weights):
            return MobileNetV2(_quantised_layers(weights), True, (0.5,) * 3, (0.5,) * 3).eval()
        return MobileNetV2(_folded_layers(weights), False, IMAGENET_MEAN, IMAGENET_STD).eval()
    except KeyError as error:
        raise _not_these(where, name, f"no tensor {error}") from error


def _not_these(where: str, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"these are not weights of {name} in torchvision's layout ({why})", where=where
    )


def _layer_names() -> list[str]:
    names, block = ["features.0.0"], 1
    for expansion, _, repeats, _ in INVERTED_RESIDUALS:
        for _ in range(repeats):
            parts = ("0.0", "1") if expansion == 1 else ("0.0", "1.0", "2")
            names += [f"features.{block}.conv.{part}" for part in parts]
            block += 1
    return [*names, "features.18.0"]


def _quantised_layers(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        name: (
            weights[f"{name}.weight_int8"].float() * weights[f"{name}.scale"].view(-1, 1, 1, 1),
            weights[f"{name}.bias"].float(),
        )
        for name in _layer_names()
    }


def _folded_layers(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Batch norm is the layer after: ``conv.2`` is normalised by ``conv.3``."""
    layers = {}
    for name in _layer_names():
        stem, _, last = name.rpartition(".")
        norm = f"{stem}.{int(last) + 1}"
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + 1e-5)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        layers[name] = (weights[f"{name}.weight"] * scale.view(-1, 1, 1, 1), bias)
    return layers
