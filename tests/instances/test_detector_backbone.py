"""Detectors on networks of timm: levels, what is frozen, what learns how fast, what cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from scene_tables import TINY
from torch import nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_backbone import check_body
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.training.strategy import build_optimizer, set_learning_rate

FOUR, FIVE = (8.0, 16.0, 32.0, 64.0), (8.0, 16.0, 32.0, 64.0, 128.0)
AT = "stages.propose.detector"


def _config(model: str, **change: Any) -> DetectorConfig:
    change = {"backbone": model, "anchor_sizes_px": FOUR, **change}
    return DetectorConfig.model_validate(TINY.model_dump() | change)


def _stored(folder: Path, model: str) -> dict[str, Any]:
    torch.manual_seed(3)
    net = timm.create_model(model)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
    path = folder / "net.safetensors"
    save_file(net.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": str(path), "weights_sha256": digest}


def _losses(model: nn.Module, side: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    masks = torch.zeros(1, side, side, dtype=torch.uint8)
    masks[0, 8:40, 8:40] = 1
    target = {
        "boxes": torch.tensor([[8.0, 8, 40, 40]]),
        "labels": torch.tensor([1]),
        "weights": torch.ones(1),
        "masks": masks,
        "has_mask": torch.tensor([True]),
        "mask_scale": torch.ones(2),
        "ignore": torch.zeros(0, 4),
    }
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
    return model({"images": [image], "targets": [target]})


@pytest.mark.parametrize("sizes", [FOUR, FIVE])
@pytest.mark.parametrize("model", ["test_resnet", "test_convnext", "test_vit"])
def test_levels_of_any_network(model: str, sizes: tuple[float, ...]) -> None:
    detector = build_mask_rcnn(_config(model, anchor_sizes_px=sizes), 1, seed=0)
    levels = detector.backbone(torch.zeros(1, 3, 64, 96))
    cells = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)][: len(sizes)]
    assert [tuple(level.shape[-2:]) for level in levels.values()] == cells
    assert all(level.shape[1] == TINY.fpn_channels for level in levels.values())
    losses = _losses(detector)
    losses["total"].backward()
    first = next(detector.backbone.body.backbone.net.parameters())
    assert torch.isfinite(losses["total"])
    assert first.grad is not None


@pytest.mark.parametrize("side", [64, 96])
def test_a_vit_of_patches_of_14_px_keeps_the_strides(side: int) -> None:
    with torch.device("meta"):
        backbone = build_mask_rcnn(_config("vit_small_patch14_dinov2"), 1, seed=0).backbone
        levels = backbone(torch.zeros(1, 3, side, side))
    assert [level.shape[-1] for level in levels.values()] == [side // s for s in (4, 8, 16, 32)]


def test_frozen_batch_norm_keeps_the_weights_as_they_are(tmp_path: Path) -> None:
    file = _stored(tmp_path, "test_efficientnet")
    config = _config("test_efficientnet", norm="frozen_batch", frozen_stages=1, **file)
    check_body(config, AT)
    detector = build_mask_rcnn(config, 1, seed=0).train()
    body = detector.backbone.body.backbone
    assert not any(isinstance(module, nn.BatchNorm2d) for module in body.modules())
    own = timm.create_model("test_efficientnet", features_only=True, out_indices=(1, 2, 3, 4))
    own.load_state_dict(load_file(file["weights"]), strict=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        want = own.eval()(body.normalised(images))
        for one, other in zip(body.stage_maps(images), want, strict=True):
            torch.testing.assert_close(one, other)
    assert not body.net.conv_stem.weight.requires_grad
    assert body.net.blocks[4][0].conv_pw.weight.requires_grad
    before = {name: value.clone() for name, value in body.state_dict().items() if "running" in name}
    _losses(detector)
    assert all(torch.equal(body.state_dict()[name], value) for name, value in before.items())
    again = build_mask_rcnn(config.model_copy(update={"weights": None}), 1, seed=1)
    again.load_state_dict(detector.state_dict())
    with torch.no_grad():
        one, other = (net.backbone(images).values() for net in (detector, again))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_from_scratch_group_norm_takes_the_place_of_batch_norm() -> None:
    body = build_mask_rcnn(_config("test_efficientnet"), 1, seed=0).backbone.body.backbone
    kinds = {type(module).__name__ for module in body.modules() if "Norm" in type(module).__name__}
    assert kinds == {"GroupNormAct"}
    batch = timm.create_model("test_efficientnet", num_classes=0)
    acts = [type(m.act).__name__ for m in batch.modules() if hasattr(m, "running_var")]
    assert acts == [type(m.act).__name__ for m in body.modules() if isinstance(m, nn.GroupNorm)]


def test_the_backbone_learns_at_its_share_of_the_rate() -> None:
    detector = build_mask_rcnn(_config("test_resnet", backbone_lr=0.25), 1, seed=0)
    optimizer = build_optimizer(detector, TrainingConfig(optimizer="adamw", lr=0.1))
    set_learning_rate(optimizer, 0.08)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    body = {id(p) for p in detector.backbone.body.backbone.parameters()}
    assert {rate for one, rate in rates.items() if one in body} == {0.02}
    assert {rate for one, rate in rates.items() if one not in body} == {0.08}
    assert len(rates) == len(list(detector.parameters()))


@pytest.mark.parametrize(
    ("model", "change", "key", "message"),
    [
        ("test_vitt", {}, "backbone", "test_vit"),
        ("levit_128", {}, "backbone", "one side only|strides"),
        ("test_resnet", {"weights": "hub", "weights_sha256": "0" * 64}, "weights", "hub"),
        ("test_resnet", {"weights": "nowhere", "weights_sha256": None}, "weights", "cannot read"),
    ],
)
def test_what_cannot_be_is_said_before_a_run(tmp_path, monkeypatch, model, change, key, message):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=message) as raised:
        check_body(_config(model, **change), AT)
    assert raised.value.where == f"{AT}.{key}"


def test_weights_with_batch_statistics_want_them_frozen(tmp_path: Path) -> None:
    file = _stored(tmp_path, "test_resnet")
    with pytest.raises(ConfigError, match="norm: frozen_batch"):
        check_body(_config("test_resnet", **file), AT)
    check_body(_config("test_vit", **_stored(tmp_path, "test_vit")), AT)


def test_the_key_knows_what_the_weights_are() -> None:
    package = _config("tf_efficientnet_lite0", weights="package", norm="frozen_batch")
    assert package.key_fields()["weights_sha256"].startswith("57934424")
    assert "weights" not in package.key_fields()
    assert package.trained_with_labels() is True
    assert _config("test_resnet").trained_with_labels() is False


def test_the_pyramid_has_the_same_scale_whatever_the_network_has():
    """Pretrained maps differ in scale by a factor of ten, from network to network and by stage."""
    pyramid: Any = build_mask_rcnn(_config("test_resnet"), 1, seed=0).backbone
    maps = {
        str(level): torch.randn(1, channels, 16 >> level, 16 >> level)
        for level, channels in enumerate(pyramid.body.channels)
    }
    levels = pyramid.fpn(maps)
    assert all(0.8 < float(level.detach().std()) < 1.2 for level in levels.values())
    for name, level in pyramid.fpn({name: 20 * found for name, found in maps.items()}).items():
        assert torch.allclose(level, levels[name], atol=0.02)
