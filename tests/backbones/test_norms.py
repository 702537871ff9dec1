"""A frozen batch norm: the same numbers as others', the same names, and on a GPU no wider map."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d, freeze_batch_norm_2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.backbones.norms import FrozenBatchNorm, frozen_batch_norm


def trained(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With statistics, and whatever else it has, of some training."""
    generator = torch.Generator().manual_seed(0)
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return norm.eval()


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False, eps=1e-3), BatchNormAct2d(6)],
    ids=["plain", "without scale", "with activation"],
)
def test_the_bits_of_other_frozen_norms(norm: nn.BatchNorm2d):
    norm, maps = trained(norm), torch.randn(3, 6, 5, 4)
    ours, others = FrozenBatchNorm.of(norm), freeze_batch_norm_2d(copy.deepcopy(norm))
    assert isinstance(others, FrozenBatchNormAct2d | FrozenBatchNorm2d)
    assert torch.equal(ours(maps), others(maps))
    torch.testing.assert_close(ours(maps), norm(maps))
    assert list(ours.state_dict()) == list(others.state_dict())  # what is stored can be loaded
    ours.load_state_dict(norm.state_dict(), strict=norm.affine)  # counters of batches are left out
    assert not list(ours.parameters())


def test_a_network_keeps_its_bits_and_its_names():
    torch.manual_seed(0)
    network = build_backbone("test_efficientnet", None, None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            trained(module)
    others = copy.deepcopy(network)
    others.net = freeze_batch_norm_2d(others.net)
    frozen_batch_norm(network.net)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(images), others(images))
    assert list(network.state_dict()) == list(others.state_dict())


def test_a_map_of_16_bits_stays_one_but_on_a_cpu():
    """The meta device stands for a GPU."""
    norm = FrozenBatchNorm(4)
    assert norm(torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32
    there = torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16, device="meta")
    found = norm.to("meta")(there.contiguous(memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
