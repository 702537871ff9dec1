"""Principal axes against the singular vectors of the centered points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcdis_ray.clustering import principal_axes as module
from gcdis_ray.clustering.principal_axes import principal_axes


@pytest.mark.parametrize("block", [1 << 16, 7])
def test_they_are_the_singular_vectors(monkeypatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    spread = torch.tensor([5.0, 0.1, 2.0, 1.0, 0.3])
    points = torch.randn(90, 5, generator=torch.Generator().manual_seed(1)) * spread + 40
    mean, axes = principal_axes(points, 3)
    torch.testing.assert_close(mean, points.mean(dim=0))
    _, _, rows = np.linalg.svd((points - points.mean(dim=0)).double().numpy())
    np.testing.assert_allclose(np.abs(rows[:3] @ axes.numpy()), np.eye(3)[::-1], atol=1e-5)
    assert principal_axes(points, 100)[1].shape == (5, 5)
