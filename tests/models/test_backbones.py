"""Frozen backbones: against torchvision, against reference activations, and by what must not
change a weight-free embedding."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.errors import ConfigError
from gcdis_ray.models.backbones import MobileNetV2, build_backbone, read_weights


def _images(num: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)


def _normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / std


def _lively(net: nn.Module) -> nn.Module:
    """Batch statistics as after training, so that folding them wrongly shows."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.running_mean = 0.1 * torch.randn(shape, generator=generator)
            module.running_var = 0.5 + torch.rand(shape, generator=generator)
            module.bias.data = 0.1 * torch.randn(shape, generator=generator)
    return net.eval()


def test_mobilenet_equals_torchvision(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    net = _lively(mobilenet_v2(weights=None))
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path)
    ours = build_backbone("mobilenet_v2", read_weights(path))
    images = _images(2, 64)
    with torch.inference_mode():
        want = net.features(_normalised(images)).mean(dim=(2, 3))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(ours(images, None), F.normalize(want, dim=1), atol=1e-5, rtol=0)


def test_folded_tensorflow_weights_give_the_reference_activations(shared_data: Path) -> None:
    folder = shared_data / "backbone-mobilenetv2"
    weights = read_weights(folder / "mobilenet_v2_1.0_imagenet_int8.npz")
    net = build_backbone("mobilenet_v2", weights)
    assert isinstance(net, MobileNetV2)
    with np.load(folder / "reference_io.npz", allow_pickle=False) as reference:
        images = torch.from_numpy(reference["input_uint8_nhwc"]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found = net.features(images.float() / 255, None)
        np.testing.assert_allclose(found.numpy(), reference["features_1280"], atol=1e-4)


def test_weights_files_are_pinned_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path, digest)["a"].tolist() == [0, 0]
    with pytest.raises(ConfigError, match="the config wants 0000"):
        read_weights(path, "0" * 64)
    with pytest.raises(ConfigError, match="not weights of mobilenet_v2"):
        build_backbone("mobilenet_v2", read_weights(path))
    with pytest.raises(ConfigError, match="cannot read the weights"):
        read_weights(tmp_path / "none.safetensors")
    path.write_bytes(b"no tensors here")
    with pytest.raises(ConfigError, match="neither safetensors nor npz"):
        read_weights(path)


def test_an_npz_with_objects_is_refused_unopened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    path = tmp_path / "net.npz"
    np.savez(path, weights=np.array([Trap()], dtype=object))
    with pytest.raises(ConfigError, match="neither safetensors nor npz"):
        read_weights(path)
    assert not (tmp_path / "canary").exists()
