"""MobileNetV2 as a detector's body: the features of its file, never trained, always stored."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from gcdis_ray.errors import ConfigError
from gcdis_ray.models.backbones import build_backbone, read_weights
from gcdis_ray.models.mobilenet_body import CHANNELS, MobileNetBody

MEAN, STD = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([50.0, 60.0, 70.0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file in torchvision's layout with random weights and statistics."""
    torch.manual_seed(0)
    net = mobilenet_v2(weights=None).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.safetensors"
    save_file(net.state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), net


def _body(weights):
    body = MobileNetBody(MEAN.view(3, 1, 1), STD.view(3, 1, 1))
    body.load(str(weights[0]), weights[1])
    return body


def test_levels_are_those_of_torchvision(weights):
    images = torch.rand(2, 3, 64, 96)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, expected = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1), []
    with torch.no_grad():
        for index, block in enumerate(weights[2].features[:18]):
            x = block(x)
            if index in (3, 6, 13, 17):
                expected.append(x)
    found = _body(weights)((images * 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))
    assert [level.shape[1] for level in found.values()] == list(CHANNELS)
    for level, wanted in zip(found.values(), expected, strict=True):
        assert torch.allclose(level, wanted, rtol=1e-3, atol=1e-4)


def test_published_weights(shared_data):
    path = shared_data / "backbone-mobilenetv2" / "mobilenet_v2_1.0_imagenet_int8.npz"
    body = MobileNetBody(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 255.0))
    body.load(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    net = build_backbone("mobilenet_v2", read_weights(path))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        last = net._conv("features.18.0", body(images)["3"])
        assert torch.allclose(last, net.map(images), rtol=1e-3, atol=1e-4)


def test_other_files_are_refused(weights, tmp_path):
    body = MobileNetBody(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with pytest.raises(ConfigError, match=weights[1]):
        body.load(str(weights[0]), "0" * 64)
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    sha256 = hashlib.sha256((tmp_path / "other.safetensors").read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="not weights of mobilenet_v2"):
        body.load(str(tmp_path / "other.safetensors"), sha256)
