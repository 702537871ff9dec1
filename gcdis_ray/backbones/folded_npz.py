"""A MobileNetV2 whose batch norm is folded into int8 convolutions, as weights of timm's.

A ``.npz`` file has, per layer ``L`` in torchvision's names, ``L.weight_int8`` (out, in, kh, kw),
``L.scale`` (out) and ``L.bias`` (out), float32. It comes from TensorFlow: SAME padding, input
RGB / 127.5 - 1.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gcdis_ray.errors import ConfigError

MODEL = "mobilenetv2_100"


def read_folded_npz(
    data: bytes, expected: Mapping[str, Tensor], epsilon: float, where: str
) -> dict[str, Tensor]:
    """Tensors in timm's names, with those that say how images are wanted.

    Args:
        expected: names and shapes of timm's network, in its order: each convolution is followed by
            its batch norm. The norms get statistics and weights with which they add the bias and
            do nothing else.
        epsilon: of its batch norms.
        where: named in errors.

    Raises:
        ConfigError: no such file, or of another network.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            stored = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"not an npz file without objects ({error})", where=where) from error
    layers = [name.removesuffix(".weight_int8") for name in stored if name.endswith("_int8")]
    layers = [name for name in layers if not name.startswith("classifier")]
    convolutions = [name for name, value in expected.items() if value.ndim == 4]
    norms = [name.removesuffix(".running_var") for name in expected if name.endswith("running_var")]
    if not len(layers) == len(convolutions) == len(norms):
        raise ConfigError(
            f"{len(layers)} folded layers, {MODEL} has {len(convolutions)}", where=where
        )
    tensors = {
        "input_mean": torch.full((3,), 0.5),
        "input_std": torch.full((3,), 0.5),
        "same_padding": torch.tensor(True),
    }
    for layer, convolution, norm in zip(layers, convolutions, norms, strict=True):
        scale, bias = stored.get(f"{layer}.scale"), stored.get(f"{layer}.bias")
        if scale is None or bias is None:
            raise ConfigError(f"layer {layer} has no scale or no bias", where=where)
        weight = stored[f"{layer}.weight_int8"].float() * scale.view(-1, 1, 1, 1)
        if weight.shape != expected[convolution].shape:
            raise ConfigError(
                f"{layer} has shape {tuple(weight.shape)}, {convolution} of {MODEL} "
                f"{tuple(expected[convolution].shape)}",
                where=where,
            )
        tensors[convolution] = weight
        tensors |= {
            f"{norm}.weight": torch.ones_like(bias),
            f"{norm}.bias": bias.float(),
            f"{norm}.running_mean": torch.zeros_like(bias),
            f"{norm}.running_var": torch.full_like(bias, 1 - epsilon),
            f"{norm}.num_batches_tracked": torch.tensor(0),
        }
    return tensors
