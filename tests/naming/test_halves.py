"""Which clusters look like two."""

import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.naming.halves import halves


def cloud(num: int, dims: int, seed: int, spread: float = 0.3) -> torch.Tensor:
    return spread * torch.randn(num, dims, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num", [24, 60, 400])
def test_two_groups_are_told_from_one_cloud(num: int):
    center, step = cloud(2, 24, 1, 1.0)
    group = (torch.arange(num) % 3 == 0).float()[:, None]
    two = halves(F.normalize(center + cloud(num, 24, 2) + group * step, dim=1), 0)
    one = halves(F.normalize(center + cloud(num, 24, 3), dim=1), 0)
    assert two is not None
    assert one is not None
    assert two.clear
    assert two.smaller == -(-num // 3)
    assert not one.clear


def test_a_long_cloud_is_one():
    """Its halves look well apart, and so would those of any cloud as long."""
    found = halves(cloud(200, 8, 1) * torch.tensor([9.0, 1, 1, 1, 1, 1, 1, 1]), 0)
    assert found is not None
    assert found.silhouette > 0.5
    assert not found.clear


def test_strays_are_no_half():
    points = cloud(50, 24, 1, 0.1)
    points[:2] += 5
    found = halves(points, 0)
    assert found is not None
    assert found.smaller == 2
    assert not found.clear


def test_equal_points_and_few_points_are_not_two():
    assert halves(torch.ones(20, 4), 0) is None
    assert halves(cloud(7, 4, 0), 0) is None


def test_the_same_points_give_the_same_halves():
    points = cloud(40, 6, 4)
    first, second = halves(points, 5), halves(points, 5)
    assert first is not None
    assert second is not None
    assert first.silhouette == second.silhouette
    assert first.chance == second.chance
    assert torch.equal(first.centers_2D, second.centers_2D)
