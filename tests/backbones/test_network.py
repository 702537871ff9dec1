"""Networks of timm: the same maps as timm's own, whole, stage by stage, and taken apart."""

from __future__ import annotations

import copy

import pytest
import timm
import torch

from gcdis_ray.backbones.backbone import StageShape
from gcdis_ray.backbones.network import (
    build_backbone,
    check_parts,
    check_side,
    default_side,
)
from gcdis_ray.backbones.staged import StagedBackbone
from gcdis_ray.errors import ConfigError

CNNS = ("test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet")
VITS = ("test_vit", "test_vit3")


def _built(model: str, side: int):
    torch.manual_seed(0)
    return build_backbone(model, None, side).eval(), torch.rand(2, 3, side, side)


@pytest.mark.parametrize("model", CNNS)
def test_a_cnns_maps_and_parts_are_timms(model: str) -> None:
    network, images = _built(model, 64)
    mean, std = (network.net.pretrained_cfg[key] for key in ("mean", "std"))
    normalised = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    own = timm.create_model(model, num_classes=0, features_only=True).eval()
    info = own.feature_info
    shapes = list(zip(info.channels(), info.reduction(), strict=True))
    with torch.no_grad():
        want = network.net.forward_features(normalised)
        assert torch.equal(network(images), want)
        class_token, found = network.tokens(images)
        assert class_token is None
        assert torch.equal(found, want)
        maps = network.stage_maps(images)
        assert torch.equal(network(images, lambda stage, found: found), want)
        for last in (0, 1, network.num_blocks):
            front, tail = network.split(last)
            torch.testing.assert_close(tail(front(images)), want)
    assert network.num_features == want.shape[1]
    assert list(network.stages) == [StageShape(c, r) for c, r in shapes if r >= 4]
    for stage, found in zip(network.stages, maps, strict=True):
        assert found.shape == (2, stage.channels, 64 // stage.stride, 64 // stage.stride)


@pytest.mark.parametrize("model", VITS)
def test_a_vits_tokens_keys_and_parts(model: str) -> None:
    network, images = _built(model, 48)
    cells = 48 // network.patch
    with torch.no_grad():
        class_token, found = network.tokens(images)
        assert found.shape == (2, network.num_features, cells, cells)
        assert (class_token is not None) == network.has_class
        tokens = network.net.forward_features(network.normalised(images))
        prefix = network.net.num_prefix_tokens
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens[:, prefix:])
        for last in (0, 1, network.num_blocks):
            front, tail = network.split(last)
            again = tail.tokens(front(images))
            torch.testing.assert_close(again[1], found)
            if class_token is not None:
                torch.testing.assert_close(again[0], class_token)
        keys = network.keys(images)
    assert keys.shape[0] == 2
    assert keys.shape[2] == cells**2
    with pytest.raises(ConfigError, match="has no stages"):
        network.stage_maps(images)


def test_keys_are_what_attention_compares_queries_with() -> None:
    network, images = _built("test_vit", 32)
    attention = network.net.blocks[-1].attn
    seen = []
    attention.qkv.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        keys = network.keys(images)
    tokens, width = seen[0].shape[1], network.num_features
    want = seen[0][:, :, width : 2 * width].unflatten(2, (attention.num_heads, -1))
    torch.testing.assert_close(keys, want.transpose(1, 2)[:, :, tokens - keys.shape[2] :])


def test_a_gate_acts_on_what_follows() -> None:
    network, images = _built("test_efficientnet", 64)
    with torch.no_grad():
        plain = network.stage_maps(images)
        gated = network.stage_maps(images, lambda stage, found: found * (stage != 1))
        last = network(images, lambda stage, found: found * (stage != 1))
    assert torch.equal(gated[0], plain[0])
    assert not gated[1].any()
    assert not torch.allclose(gated[2], plain[2])
    assert not torch.allclose(last, network(images))


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
def test_what_a_tail_learns_is_learned_in_the_whole(model: str) -> None:
    network, images = _built(model, 32)
    front, tail = network.split(1)
    before = network(images).detach()
    with torch.no_grad():
        held = front(images)
    optimizer = torch.optim.SGD(tail.parameters(), lr=0.5)
    tail(held).square().mean().backward()
    optimizer.step()
    after = network(images).detach()
    assert not torch.allclose(before, after)
    torch.testing.assert_close(tail(held).detach(), after)
    assert torch.equal(front(images), held)
    with pytest.raises(ConfigError, match="blocks, the last 99"):
        network.split(99)


def test_frozen_stages() -> None:
    network, _ = _built("test_efficientnet", 32)
    network.freeze(2)
    frozen = {n.split(".")[1] for n, p in network.named_parameters() if not p.requires_grad}
    assert {"conv_stem", "bn1", "blocks"} <= frozen
    assert network.net.blocks[4][0].conv_pw.weight.requires_grad
    vit, _ = _built("test_vit", 32)
    vit.freeze(2)
    learns = [all(p.requires_grad for p in block.parameters()) for block in vit.net.blocks]
    assert learns == [False] * 3 + [True] * 3
    with pytest.raises(ConfigError, match="4 stages"):
        network.freeze(5)


@pytest.mark.parametrize(
    ("model", "side", "message"),
    [
        ("test_vit", 50, "use 48 or 64 px"),
        ("vit_small_patch14_dinov2", 224 + 1, "use 224 or 238 px"),
        ("test_vitt", 32, "test_vit"),
        ("mobilenet_v2", 32, "mobilenetv2_100"),
        ("resnet50.a99_in1k", 32, r"resnet50\.a1_in1k"),
        ("nothing of the kind", 32, "nearest"),
        ("levit_128", 192, "224"),
        ("cait_xxs24_224", 224, "or another network"),
        ("mvitv2_tiny", 224, "no map of features"),
    ],
)
def test_what_cannot_be_is_said_at_once(model: str, side: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_side(model, side)


@pytest.mark.parametrize(("model", "side"), [("test_vit", 32), ("test_resnet", 50)])
def test_sides_that_fit(model: str, side: int) -> None:
    assert check_side(model, side).num_features


def test_default_sides() -> None:
    assert default_side("tf_efficientnet_lite0") == 224
    assert default_side("vit_small_patch14_dinov2.lvd142m") == 224
    assert default_side("test_resnet") == 160


def test_a_copy_and_its_front_stay_one_network() -> None:
    network, images = _built("test_vit", 32)
    other = copy.deepcopy(network)
    front, tail = other.split(2)
    with torch.no_grad():
        torch.testing.assert_close(tail(front(images)), network(images))


def test_what_does_not_come_apart_is_said_at_once() -> None:
    check_parts("test_resnet", 32)
    check_parts("test_vit", None)
    network, _ = _built("test_resnet", 32)
    assert isinstance(network, StagedBackbone)
    network._parts.remove("layer2")  # as if timm did more than its modules say
    with pytest.raises(ConfigError, match="cannot be taken apart into stages"):
        network.split(1)
