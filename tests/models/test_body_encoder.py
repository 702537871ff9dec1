"""Encoders on a body: in eval mode while it learns, gated by attention, pooled over the object."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gcdis_ray.backbones.frozen import NetworkFeatures
from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.data.crops.augment import normalize, with_mask
from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.models.body_encoder import TailEncoder, WholeEncoder, unnormalised

SIDE_PX = 32


def images(num: int = 3) -> torch.Tensor:
    return torch.rand(num, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))


def whole(model: str, kind, *, use_mask: bool = False, attention=None) -> WholeEncoder:
    torch.manual_seed(0)
    body = build_backbone(model, None, SIDE_PX)
    size = body.num_features * (2 if kind == "both" else 1)
    return WholeEncoder(body, kind, size, use_mask=use_mask, attention=attention)


def test_normalisation_is_undone():
    torch.testing.assert_close(unnormalised(normalize(images())), images(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("model", "kind"), [("test_resnet", "patch_mean"), ("test_vit", "both")])
@pytest.mark.parametrize("use_mask", [True, False])
def test_features_are_those_of_stage_embed(model: str, kind, use_mask: bool):
    encoder = whole(model, kind, use_mask=use_mask)
    masks = torch.zeros(3, 1, SIDE_PX, SIDE_PX)
    masks[..., :9, 5:] = 1
    seen = normalize(images())
    found, saliencies = encoder(with_mask(seen, masks) if use_mask else seen)
    assert saliencies == []
    frozen = NetworkFeatures(encoder.body, kind).features(
        images(), (255 * masks).to(torch.uint8) if use_mask else None
    )
    torch.testing.assert_close(found, frozen, atol=1e-5, rtol=1e-4)
    assert found.shape == (3, encoder.num_features)


def test_a_body_learns_in_eval_mode_and_its_attention_in_train_mode():
    encoder = whole("test_resnet", "patch_mean", attention=soft_attention((2, 1), 4, 3.0))
    assert not any(part.training for part in encoder.body.modules())
    assert all(part.training for part in encoder.attention.modules())
    before = {name: b.clone() for name, b in encoder.body.named_buffers()}
    encoder(normalize(images()))[0].sum().backward()
    assert all(torch.equal(b, before[name]) for name, b in encoder.body.named_buffers())
    first = next(encoder.body.parameters())
    assert first.grad is not None
    assert bool(first.grad.any())
    assert not any(part.training for part in encoder.eval().modules())


def test_attention_gates_every_stage_and_starts_open():
    plain = whole("test_resnet", "patch_mean")
    encoder = whole("test_resnet", "patch_mean", attention=soft_attention((2, 1), 4, 3.0))
    assert encoder.attended == (0, 1, 2, 3)
    features, saliencies = encoder(normalize(images()))
    assert [s.shape[-1] for s in saliencies] == [8, 4, 2, 1]
    for saliency in saliencies:
        torch.testing.assert_close(saliency, torch.full_like(saliency, 0.9526), atol=1e-4, rtol=0)
    cosines = nn.functional.cosine_similarity(features, plain(normalize(images()))[0])
    assert bool((cosines > 0.95).all())
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    nn.init.constant_(encoder.attention[0].norm.bias, -50.0)  # shut: no image gets further
    shut, _ = encoder(normalize(images()))
    torch.testing.assert_close(shut[0], shut[1])


def test_a_tail_starts_where_the_whole_is():
    torch.manual_seed(0)
    body = build_backbone("test_vit", None, SIDE_PX).eval()
    front, tail = body.split(2)
    with torch.no_grad():
        rows = front(images())
        expected = NetworkFeatures(body, "both").features(images(), None)
    encoder = TailEncoder(tail, rows.shape[1:], None, "both", expected.shape[1])
    torch.testing.assert_close(encoder(rows.flatten(1))[0], expected)
    names = [name for name, _ in encoder.named_parameters()]
    assert all(name.startswith(("tail.blocks.", "tail.norm.")) for name in names)
