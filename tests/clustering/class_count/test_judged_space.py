"""The space that labels choose."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.class_count import judged_space as module
from gcdis_ray.clustering.class_count.judged_space import judged_space, precision
from gcdis_ray.clustering.class_count.points import CountSettings, prepare


def _slow(points: Tensor, labels: list[int]) -> float:
    of_class: dict[int, list[float]] = {}
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        others.sort(key=lambda j: -float(points[i] @ points[j]))
        hits = [n for n, j in enumerate(others, start=1) if labels[j] == label]
        if hits:
            average = sum(k / n for k, n in enumerate(hits, start=1)) / len(hits)
            of_class.setdefault(label, []).append(average)
    return sum(sum(found) / len(found) for found in of_class.values()) / len(of_class)


@pytest.mark.parametrize("block", [500, 7])
def test_precision_is_that_of_every_ranking(monkeypatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    points = F.normalize(torch.randn(30, 3, generator=Generator().manual_seed(0)), dim=1)
    labels = [n % 4 for n in range(29)] + [4]  # the last class has a single point
    assert precision(points, torch.tensor(labels)) == pytest.approx(_slow(points, labels))
    assert precision(points[:2].repeat(3, 1), torch.tensor([0, 1] * 3)) == 1


def _vectors(told: float, other: float) -> tuple[Tensor, Tensor]:
    """Classes lie apart along six directions; six others, of another spread, tell nothing."""
    generator = Generator().manual_seed(1)
    labels = torch.arange(240) % 6
    vectors = torch.cat(
        [
            told * (F.one_hot(labels).float() + 0.2 * torch.randn(240, 6, generator=generator)),
            other * torch.randn(240, 6, generator=generator),
        ],
        dim=1,
    )
    return vectors, torch.where(torch.arange(240) < 120, labels, -1)


def test_it_is_the_one_where_labeled_points_lie_nearest_to_their_class() -> None:
    assert judged_space(*_vectors(1, 0.1), 12) == "principal"
    assert judged_space(*_vectors(1, 3), 12) == "whitened"


def test_half_whitened_where_labels_cannot_tell() -> None:
    vectors, labels = _vectors(1, 3)
    assert judged_space(vectors, torch.where(labels == 0, 0, -1), 12) == "half_whitened"
    single = torch.full_like(labels, -1)
    single[:6] = labels[:6]
    assert judged_space(vectors, single, 12) == "half_whitened"


def test_points_lie_in_the_space_that_is_named_or_chosen() -> None:
    vectors, labels = _vectors(1, 3)
    chosen = prepare(vectors, labels, CountSettings(dims=12), 0)
    named = prepare(vectors, labels, CountSettings(dims=12, space="whitened"), 0)
    other = prepare(vectors, labels, CountSettings(dims=12, space="principal"), 0)
    assert torch.equal(chosen.points_ND, named.points_ND)
    assert not torch.equal(chosen.points_ND, other.points_ND)
