"""Files of random MobileNetV2 weights in both accepted formats."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v2


def _net() -> nn.Module:
    torch.manual_seed(0)
    net = mobilenet_v2(weights=None).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return net


def torchvision_layout(folder: Path) -> tuple[Path, str]:
    """A safetensors file and its SHA-256."""
    path = folder / "mobilenet_v2.safetensors"
    save_file(_net().state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def folded_int8(folder: Path) -> tuple[Path, str]:
    """A npz file in TensorFlow's manner and its SHA-256."""
    arrays: dict[str, np.ndarray] = {}
    for name, module in _net().named_modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach().numpy()
            scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
            arrays[f"{name}.weight_int8"] = np.round(weight / scale[:, None, None, None]).astype(
                np.int8
            )
            arrays[f"{name}.scale"] = scale.astype(np.float32)
            arrays[f"{name}.bias"] = np.linspace(-0.1, 0.1, len(scale), dtype=np.float32)
    path = folder / "mobilenet_v2.npz"
    np.savez(path, **arrays)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
