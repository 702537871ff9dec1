"""Encoder, heads and momentum over a grid of shapes and dtypes against the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.models.encoder import ResNetEncoder
from gcdis_ray.models.heads import CosineClassifier, Projector
from gcdis_ray.models.momentum import MomentumEncoder, rising_momentum


def torchvision_like(**changes: object) -> ResNetEncoder:
    values: dict[str, object] = dict(
        block="bottleneck",
        blocks=(1, 2, 1, 1),
        widths=(256, 512, 1024, 2048),
        stem_width=64,
        stem_kernel=7,
        stem_stride=2,
        stem_pool=True,
    )
    return ResNetEncoder(**(values | changes))  # type: ignore[arg-type]


def test_with_stem_pool_and_without_attention_it_is_a_resnet():
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    reference = ResNet(Bottleneck, [1, 2, 1, 1])
    reference.fc = nn.Identity()  # type: ignore[assignment]
    for name, value in reference.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.add_(torch.rand_like(value))
    encoder = torchvision_like()
    encoder.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        found, _ = encoder.eval()(images)
        torch.testing.assert_close(found, reference.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooled", [True, False])
def test_stem_pool_halves_every_stage(pooled: bool):
    with torch.device("meta"):
        encoder = torchvision_like(stem_pool=pooled, attention=soft_attention((4, 3, 2), 8)).eval()
        _, saliencies = encoder(torch.randn(1, 3, 224, 224))
    sides = [56, 28, 14, 7] if pooled else [112, 56, 28, 14]
    assert [s.shape[-1] for s in saliencies] == sides


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("width", "hidden", "dim"), [(3, 8, 2), (16, 5, 7)])
def test_projector_is_two_hidden_layers_with_gelu(
    width: int, hidden: int, dim: int, dtype: torch.dtype
):
    torch.manual_seed(0)
    head = Projector(width, hidden, dim, norm=False).to(dtype)
    features = torch.randn(4, width, dtype=dtype)
    layers = [module for module in head if isinstance(module, nn.Linear)]
    assert len(layers) == 3
    for row, ours in zip(features.tolist(), head(features).tolist(), strict=True):
        for k, layer in enumerate(layers):
            weight, bias = layer.weight.tolist(), layer.bias.tolist()
            row = [
                sum(a * w for a, w in zip(row, line, strict=True)) + b
                for line, b in zip(weight, bias, strict=True)
            ]
            if k < 2:
                row = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in row]
        length = math.sqrt(sum(x * x for x in row))
        assert ours == pytest.approx([x / length for x in row], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cosines_do_not_depend_on_lengths_and_are_never_coarse(dtype: torch.dtype):
    torch.manual_seed(0)
    head = CosineClassifier(6, 5)
    head = head.double() if dtype == torch.float64 else head
    features = torch.randn(3, 6, dtype=dtype)
    found = head(features)
    assert found.dtype in (torch.float32, torch.float64)
    for i, row in enumerate(features.double()):
        for k, prototype in enumerate(head.weight.double()):
            cosine = (row @ prototype / row.norm() / prototype.norm()).item()
            assert found[i, k].item() == pytest.approx(cosine, abs=1e-5)
    torch.testing.assert_close(head(4 * features), found)
    with torch.no_grad():
        head.weight *= 3
    torch.testing.assert_close(head(features), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_momentum_encoder_is_the_weighted_sum_of_all_students(momentum: float, dtype: torch.dtype):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).to(dtype)
    teacher, start = MomentumEncoder(student), dict(student.state_dict())
    expected = {k: v.clone().double() for k, v in start.items() if v.is_floating_point()}
    for _ in range(5):
        student(torch.randn(4, 2, 3, 3, dtype=dtype))
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter))
        teacher.update(student, momentum)
        for name, value in student.state_dict().items():
            if name in expected:
                expected[name] = momentum * expected[name] + (1 - momentum) * value.double()
    for name, value in expected.items():
        found = teacher.module.state_dict()[name].double()
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)
    assert int(teacher.module.state_dict()["1.num_batches_tracked"]) == 5


def test_rising_momentum_is_half_a_cosine():
    for k in range(9):
        wave = (1 + math.cos(math.pi * k / 8)) / 2
        assert rising_momentum(k / 8, 0.7, 0.99) == pytest.approx(0.7 * wave + 0.99 * (1 - wave))
