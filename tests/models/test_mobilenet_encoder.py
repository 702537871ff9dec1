"""MobileNetV2 as encoder: the features of its file, frozen or moved by training."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from mobilenet_files import folded_int8, torchvision_layout
from torch.nn import functional as F

from gcdis_ray.data.crops.augment import normalize
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.models.backbones import build_backbone, read_weights
from gcdis_ray.models.mobilenet_body import CHANNELS
from gcdis_ray.models.mobilenet_encoder import MobileNetEncoder


@pytest.fixture(scope="module", params=[torchvision_layout, folded_int8])
def weights(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("weights"))


def _encoder(weights=None, *, frozen: bool = True, attention: bool = False) -> MobileNetEncoder:
    gates = soft_attention((4, 3, 2), 8, start=3.0) if attention else None
    encoder = MobileNetEncoder(frozen=frozen, attention=gates)
    if weights is not None:
        encoder.load(*weights)
    return encoder


def _equals_backbone(weights, side_px: int) -> None:
    images = torch.randint(0, 256, (2, 3, side_px, side_px), dtype=torch.uint8)
    expected = build_backbone("mobilenet_v2", read_weights(weights[0]))(images, None)
    features, saliencies = _encoder((str(weights[0]), weights[1]))(normalize(images / 255))
    assert features.shape == (2, 1280)
    assert saliencies == []
    torch.testing.assert_close(F.normalize(features, dim=1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side_px", [64, 48, 33])  # 48: odd maps at a stride of 2; 33: throughout
def test_features_are_those_of_the_backbone(weights, side_px):
    _equals_backbone(weights, side_px)


def test_features_of_published_weights(shared_data):
    path = shared_data / "backbone-mobilenetv2" / "mobilenet_v2_1.0_imagenet_int8.npz"
    weights = path, hashlib.sha256(path.read_bytes()).hexdigest()
    _equals_backbone(weights, 96)
    reference = np.load(path.parent / "reference_io.npz")
    images = torch.from_numpy(reference["input_uint8_nhwc"]).permute(0, 3, 1, 2)
    found, _ = _encoder((str(path), weights[1]))(normalize(images / 255))
    torch.testing.assert_close(
        found, torch.from_numpy(reference["features_1280"]), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_attention_gates_the_last_stage_of_a_frozen_body_else_all(weights, frozen):
    encoder = _encoder((str(weights[0]), weights[1]), frozen=frozen, attention=True).eval()
    images = torch.randn(2, 3, 64, 64)
    features, saliencies = encoder(images)
    attended = (3,) if frozen else (0, 1, 2, 3)
    assert encoder.attended == attended
    assert [s.shape for s in saliencies] == [(2, 1, 16 >> i, 16 >> i) for i in attended]

    for (
        saliency
    ) in saliencies:  # open until it has learned where: trained layers see what they know
        torch.testing.assert_close(saliency, torch.full_like(saliency, 0.9526), atol=1e-4, rtol=0)

    def gate(stage, map_NCHW):
        assert map_NCHW.shape[1] == CHANNELS[stage]
        return saliencies[attended.index(stage)] * map_NCHW if stage in attended else map_NCHW

    expected = encoder.body(images, gate)["top"].mean(dim=(2, 3))
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("attention", [True, False])
def test_a_frozen_body_gets_no_gradient_and_a_trainable_one_all(weights, attention):
    images = torch.randn(2, 3, 32, 32)
    fixed = _encoder((str(weights[0]), weights[1]), attention=attention)
    features, _ = fixed(images)
    assert features.requires_grad == attention  # without, nothing is kept for a backward pass
    if attention:
        features.sum().backward()
    assert all(p.grad is None for p in fixed.body.parameters())
    assert all(p.grad is not None for p in fixed.attention.parameters())
    trained = _encoder((str(weights[0]), weights[1]), frozen=False, attention=attention)
    trained(images)[0].square().sum().backward()
    learning = {name for name, p in trained.body.named_parameters() if p.requires_grad}
    told = {name for name, p in trained.body.named_parameters() if p.grad is not None}
    assert told == learning
    assert {n for n, _ in trained.body.named_parameters()} - learning == {
        "scale",
        "shift",
        "same_padding",
    }


def test_the_state_holds_all_of_it(weights):
    loaded = _encoder((str(weights[0]), weights[1]), attention=True).eval()
    other = _encoder(attention=True).eval()
    other.load_state_dict(loaded.state_dict())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(images)[0], loaded(images)[0])


def test_another_file_is_refused(weights):
    with pytest.raises(ConfigError, match=weights[1]):
        _encoder((str(weights[0]), "0" * 64))
