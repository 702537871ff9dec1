"""Spaces against the singular vectors of the centred vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.clustering import spaces
from gcdis_ray.clustering.spaces import Space

SPREAD = torch.tensor([5.0, 0.1, 2.0, 1.0, 0.3])


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(90, 5, generator=torch.Generator().manual_seed(1)) * SPREAD + 40


@pytest.mark.parametrize("block", [1 << 16, 7])
@pytest.mark.parametrize(
    ("fit", "power"), [("principal", 1.0), ("half_whitened", 0.5), ("whitened", 0.0)]
)
def test_points_are_scaled_singular_vectors(monkeypatch, vectors, fit, power, block) -> None:
    monkeypatch.setattr(spaces, "_BLOCK", block)
    space = getattr(spaces, fit)(vectors, 3)
    left, singular, _ = np.linalg.svd(
        (vectors.double() - vectors.double().mean(dim=0)).numpy(), full_matrices=False
    )
    wanted = F.normalize(torch.tensor((left * singular**power)[:, :3]), dim=1)
    points = space.place(vectors)
    assert points.dtype == torch.float32
    signs = torch.sign((wanted * points).sum(dim=0))
    torch.testing.assert_close(points.double(), wanted * signs, atol=2e-6, rtol=0)
    largest = space.axes_DC.gather(0, space.axes_DC.abs().argmax(dim=0, keepdim=True))
    assert bool((largest > 0).all())


def test_raw_and_centred_keep_all_dimensions(vectors) -> None:
    torch.testing.assert_close(spaces.raw(vectors).place(vectors), F.normalize(vectors, dim=1))
    moved = F.normalize(vectors - vectors.mean(dim=0), dim=1)
    torch.testing.assert_close(spaces.centred(vectors).place(vectors), moved, atol=1e-5, rtol=0)


def test_directions_without_variance_are_left_out(vectors) -> None:
    flat = torch.cat([vectors, vectors[:, :2]], dim=1)  # two dimensions twice
    for fit in (spaces.principal, spaces.half_whitened, spaces.whitened):
        assert fit(flat, 100).width == 5
        assert fit(flat[:3], 100).width == 2
        alone = fit(flat[:1], 100)
        assert alone.width == 1
        assert not alone.place(flat[:1]).any()


def test_it_is_stored_as_tensors_and_moves(vectors) -> None:
    for space in (spaces.half_whitened(vectors, 3), spaces.raw(vectors)):
        again = Space.of(space.tensors()).to("cpu", torch.float32)
        assert again.width == space.width
        assert again.mean_D.dtype == torch.float32
        torch.testing.assert_close(again.place(vectors), space.place(vectors), atol=1e-4, rtol=0)
