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

from gcdis_ray.backbones.frozen import PyramidFeatures
from gcdis_ray.backbones.imagenet import IMAGENET_MEAN, IMAGENET_STD
from gcdis_ray.backbones.pooling import pool
from gcdis_ray.backbones.wavelet import Wavelet
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


def test_resnet_equals_torchvision() -> None:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    net = _lively(resnet50(weights=None))
    ours = build_backbone("resnet50", net.state_dict())
    net.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    images = _images(2, 64)
    with torch.inference_mode():
        want = net(_normalised(images))
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


@pytest.mark.parametrize("name", ["wavelet", "mobilenet_v2", "resnet50"])
def test_a_backbone_moves_as_a_whole(name: str) -> None:
    from torchvision import models

    weights = None if name == "wavelet" else getattr(models, name)(weights=None).state_dict()
    moved = build_backbone(name, weights).to("meta")
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.uint8, device="meta")
    assert moved(_images(2, 64).to("meta"), masks).is_meta


def test_weights_files_are_pinned_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_weights(path, digest)["a"].tolist() == [0, 0]
    with pytest.raises(ConfigError, match="the config wants 0000"):
        read_weights(path, "0" * 64)
    with pytest.raises(ConfigError, match="not weights of mobilenet_v2"):
        build_backbone("mobilenet_v2", read_weights(path))
    with pytest.raises(ConfigError, match="not weights of resnet50"):
        build_backbone("resnet50", read_weights(path))
    with pytest.raises(ConfigError, match="needs weights"):
        build_backbone("resnet50")
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


def test_pool_counts_the_object_only() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., :2, :2] = 255  # exactly the first cell
    assert pool(features, mask).item() == 0
    mask[..., 0:2, 2] = 255  # and half of the second
    assert pool(features, mask).item() == pytest.approx(0.5 / 1.5)
    assert pool(features, torch.zeros_like(mask)).item() == features.mean()
    assert pool(features, None).item() == features.mean()


def _stroke(x0: int, x1: int) -> torch.Tensor:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 4:28, x0:x1] = 100
    return image


def test_wavelet_forgets_contrast_brightness_and_sign() -> None:
    net = Wavelet()
    image = _stroke(12, 18)
    want = net(image, None)
    assert want.shape == (1, 8 * 5 * 5)
    for other in (image * 2, image + 40, 200 - image):
        torch.testing.assert_close(net(other, None), want, atol=2e-3, rtol=0)
    assert torch.equal(net(image, None), want)


def test_wavelet_sees_orientation_and_the_mask() -> None:
    net = Wavelet()
    image = _stroke(12, 18)
    turned = image.transpose(2, 3)
    assert float((net(image, None) * net(turned, None)).sum()) < 0.8
    mask = (image[:, :1] > 0).to(torch.uint8) * 255
    both = net(image, mask)
    assert both.shape == (1, 2 * 8 * 5 * 5)
    assert not torch.allclose(both, net(image, mask.transpose(2, 3)), atol=1e-2)
    # an outline has a direction: a hole is not a blob
    assert not torch.allclose(both, net(image, 255 - mask), atol=1e-2)


def test_wavelet_energy_equals_a_slow_filter() -> None:
    net, image = Wavelet(sigmas_px=(1.0,), num_orientations=4, grid=1), _images(1, 16)
    light = (image[0].float() / 255 * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    x = np.arange(-3, 4)
    bell = np.exp(-(x**2) / 2)
    bell /= bell.sum()
    slope = x * bell
    padded = np.pad(light.numpy(), 3, mode="edge")
    energy = np.zeros(4)
    for row in range(16):
        for column in range(16):
            part = padded[row : row + 7, column : column + 7]
            across, down = float(bell @ part @ slope), float(slope @ part @ bell)
            strength, direction = np.hypot(across, down), 2 * np.arctan2(down, across)
            for o in range(4):
                energy[o] += strength * max(np.cos(direction - o * np.pi / 2), 0) ** 2
    want = np.sqrt(energy) / np.linalg.norm(np.sqrt(energy))
    np.testing.assert_allclose(net(image, None)[0].numpy(), want, atol=1e-4)


@pytest.mark.parametrize("with_mask", [True, False])
def test_rows_have_length_one_and_do_not_depend_on_one_another(with_mask: bool) -> None:
    images = _images(5)
    images[3] = 7  # a blank crop
    masks = (_images(5, seed=1)[:, :1] > 128).to(torch.uint8) * 255 if with_mask else None
    features = Wavelet()(images, masks)
    assert torch.isfinite(features).all()
    alone = Wavelet()(images[1:2], None if masks is None else masks[1:2])
    torch.testing.assert_close(features[1:2], alone)
    lengths = features.norm(dim=1)
    torch.testing.assert_close(lengths[[0, 1, 2, 4]], torch.ones(4))


def test_pyramid_features_join_the_levels() -> None:
    def levels(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"0": x, "1": F.avg_pool2d(x, 4)}

    images = _images(2)
    found = PyramidFeatures(levels)(images, None)
    level = F.normalize(images.float().mean(dim=(2, 3)), dim=1)
    want = F.normalize(torch.cat([level, level], dim=1), dim=1)
    torch.testing.assert_close(found, want)
