from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.clustering import prototypes
from gcdis_ray.clustering.prototypes import (
    fit_prototypes,
    nearest_by_cosine,
    semi_supervised_kmeans,
)


def blobs(per_class: int = 30, num_classes: int = 6, noise: float = 0.15):
    generator = torch.Generator().manual_seed(0)
    means = torch.eye(num_classes, 8)
    classes = torch.arange(num_classes).repeat_interleave(per_class)
    points = means[classes] + noise * torch.randn(len(classes), 8, generator=generator)
    return F.normalize(points, dim=1), classes


def test_finds_novel_clusters_and_keeps_known_ones_in_place():
    points, classes = blobs()
    labels = torch.where((classes < 3) & (torch.arange(len(classes)) % 2 == 0), classes, -1)
    centers = semi_supervised_kmeans(points, labels, 3, 6, torch.Generator().manual_seed(1))
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(6))
    found = (points @ centers.T).argmax(dim=1)
    assert (found[classes < 3] == classes[classes < 3]).float().mean() == 1
    novel = [set(found[classes == c].tolist()) for c in (3, 4, 5)]
    assert all(len(one) == 1 for one in novel)
    assert set.union(*novel) == {3, 4, 5}


@pytest.mark.parametrize("num_unlabeled", [0, 1, 2])
def test_fewer_samples_than_classes(num_unlabeled):
    points, _ = blobs(per_class=1)
    points = points[: 2 + num_unlabeled]
    labels = torch.tensor([0, 1] + [-1] * num_unlabeled)
    centers = semi_supervised_kmeans(points, labels, 2, 5, torch.Generator().manual_seed(0))
    assert centers.shape == (5, 8)
    assert centers.isfinite().all()
    torch.testing.assert_close(centers[0], points[0])


def test_a_known_class_without_a_labeled_sample_gets_no_cluster():
    points, classes = blobs()
    labels = torch.where((classes == 0) | (classes == 2), classes, -1)
    centers = semi_supervised_kmeans(points, labels, 3, 7, torch.Generator().manual_seed(1))
    assert centers[1].tolist() == [0.0] * 8
    found = (points @ centers.T).argmax(dim=1)
    assert torch.equal(found[labels >= 0], labels[labels >= 0])
    assert found.unique().tolist() == [0, 2, 3, 4, 5, 6]


def test_no_known_class_at_all():
    points, classes = blobs()
    labels = torch.full((len(points),), -1)
    centers = semi_supervised_kmeans(points, labels, 0, 6, torch.Generator().manual_seed(1))
    found = (points @ centers.T).argmax(dim=1)
    assert len({(int(a), int(b)) for a, b in zip(found, classes, strict=True)}) == 6


def test_same_generator_same_centers():
    points, classes = blobs()
    labels = torch.where(classes < 2, classes, -1)
    runs = [
        semi_supervised_kmeans(points, labels, 2, 6, torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*runs)


def test_fitted_prototypes_beat_centres_where_a_shared_direction_hides_the_clusters():
    points, classes = blobs(noise=0.1)
    drift = torch.zeros(len(points), 8)
    drift[:, 7] = torch.linspace(-4, 4, len(points))[torch.randperm(len(points))]
    features = F.normalize(points + drift + torch.ones(8), dim=1)
    sums = torch.zeros(6, 8).index_add(0, classes, features)
    start = F.normalize(sums, dim=1)
    fitted = fit_prototypes(features, classes, start, 0.1)

    def accuracy(prototypes):
        return ((features @ prototypes.T).argmax(1) == classes).float().mean().item()

    torch.testing.assert_close(fitted.norm(dim=1), torch.ones(6))
    assert accuracy(fitted) > 0.95 > accuracy(start)


def test_one_block_is_what_no_blocks_would_be_and_several_are_level(monkeypatch):
    points, classes = blobs(noise=0.2)
    features, start = F.normalize(points, dim=1), F.normalize(torch.eye(6, 8) + 0.1, dim=1)
    plain = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([plain], lr=0.02)
    weight = torch.full((len(features),), 1.0) / len(features)
    for _ in range(20):
        logits = features @ F.normalize(plain, dim=1).T / 0.1
        loss = (weight * F.cross_entropy(logits, classes, reduction="none")).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    whole = fit_prototypes(features, classes, start, 0.1, steps=20)
    assert torch.equal(whole, F.normalize(plain.detach(), dim=1))
    nearest = nearest_by_cosine(features, whole)
    assert torch.equal(nearest, (features @ whole.T).argmax(dim=1))
    monkeypatch.setattr(prototypes, "_PRODUCTS", 6 * 7)
    torch.testing.assert_close(fit_prototypes(features, classes, start, 0.1, steps=20), whole)
    assert torch.equal(nearest_by_cosine(features, whole), nearest)


def test_blocks_bound_the_products_held(monkeypatch):
    monkeypatch.setattr(prototypes, "_PRODUCTS", 50)
    most, product = 0, torch.Tensor.__matmul__

    def seen(one, other):
        nonlocal most
        most = max(most, (found := product(one, other)).numel())
        return found

    monkeypatch.setattr(torch.Tensor, "__matmul__", seen)
    points, classes = blobs()
    fit_prototypes(points, classes, torch.eye(6, 8), 0.1, steps=1)
    assert 6 < most <= 50


def test_prototypes_are_fitted_by_crops_or_by_clusters():
    """Where a frequent and a rare cluster overlap, whoever counts wins the middle."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([0, 1]).repeat_interleave(torch.tensor([190, 10]))
    angles = torch.tensor([0.0, 0.5])[classes] + 0.25 * torch.randn(200, generator=generator)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    start = torch.tensor([[1.0, 0.0], [math.cos(0.5), math.sin(0.5)]])
    found = {}
    for balanced in (False, True):
        found_KD = fit_prototypes(features, classes, start, 0.1, balanced=balanced)
        by_hand = start.clone().requires_grad_()
        rate = torch.tensor([1 / 190, 1 / 10] if balanced else [1.0, 1.0])[classes]
        optimizer = torch.optim.Adam([by_hand], lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            q = torch.softmax(features @ F.normalize(by_hand, dim=1).T / 0.1, dim=1)
            loss = -(rate * q[torch.arange(200), classes].log()).sum() / rate.sum()
            loss.backward()
            optimizer.step()
        expected = F.normalize(by_hand.detach(), dim=1)
        torch.testing.assert_close(found_KD, expected, atol=1e-4, rtol=0)
        found[balanced] = int(((features @ found_KD.T).argmax(dim=1) == 1).sum())
    assert found[False] < 20 < found[True]
