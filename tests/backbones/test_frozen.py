"""Frozen features of networks: rows of length 1, of the map, the class token or both."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gcdis_ray.backbones.frozen import FrozenBackbone, NetworkFeatures, PyramidFeatures
from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.backbones.pooling import pool
from gcdis_ray.backbones.wavelet import Wavelet
from gcdis_ray.errors import ConfigError


def _images(num: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)


def _network(model: str, features: str = "auto", side: int = 32) -> NetworkFeatures:
    torch.manual_seed(0)
    return NetworkFeatures(build_backbone(model, None, side), features).eval()  # pyright: ignore[reportArgumentType]


def test_features_of_a_vit() -> None:
    images = _images(3)
    masks = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    masks[..., :16, :] = 255
    kinds = ("class_token", "patch_mean", "both", "auto")
    found = {kind: _network("test_vit", kind) for kind in kinds}
    token, mean, both, auto = (net(images, masks) for net in found.values())
    assert token.shape == mean.shape == (3, 64)
    torch.testing.assert_close(both, F.normalize(torch.cat([token, mean], dim=1), dim=1))
    assert torch.equal(auto, both)
    assert found["auto"].kind == "both"
    with torch.no_grad():
        map_NCHW = found["auto"].backbone(images / 255)
    torch.testing.assert_close(mean, F.normalize(map_NCHW[:, :, 0].mean(dim=2), dim=1))
    assert torch.equal(found["class_token"](images, None), token)
    assert not torch.allclose(found["patch_mean"](images, None), mean)


def test_features_of_a_cnn() -> None:
    net = _network("test_resnet")
    assert net.kind == "patch_mean"
    images = _images(2)
    with torch.no_grad():
        want = net.backbone(images / 255).mean(dim=(2, 3))
    torch.testing.assert_close(net(images, None), F.normalize(want, dim=1))
    with pytest.raises(ConfigError, match="has no class token"):
        _network("test_resnet", "both")


@pytest.mark.parametrize("model", ["wavelet", "test_vit", "test_resnet"])
def test_a_backbone_moves_as_a_whole(model: str) -> None:
    moved: FrozenBackbone = (Wavelet() if model == "wavelet" else _network(model)).to("meta")
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.uint8, device="meta")
    assert moved(_images(2).to("meta"), masks).is_meta


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet"])
def test_rows_do_not_depend_on_one_another(model: str) -> None:
    net, images = _network(model), _images(4)
    found = net(images, None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(net(images[1:2], None), found[1:2], atol=1e-5, rtol=0)


def test_pool_counts_the_object_only() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    mask[..., :2, :2] = 255  # exactly the first cell
    assert pool(features, mask).item() == 0
    mask[..., 0:2, 2] = 255  # and half of the second
    assert pool(features, mask).item() == pytest.approx(0.5 / 1.5)
    assert pool(features, torch.zeros_like(mask)).item() == features.mean()
    assert pool(features, None).item() == features.mean()


def test_pyramid_features_join_the_levels() -> None:
    def levels(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"0": x, "1": F.avg_pool2d(x, 4)}

    images = _images(2)
    found = PyramidFeatures(levels)(images, None)
    level = F.normalize(images.float().mean(dim=(2, 3)), dim=1)
    want = F.normalize(torch.cat([level, level], dim=1), dim=1)
    torch.testing.assert_close(found, want)
