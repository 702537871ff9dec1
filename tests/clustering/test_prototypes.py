from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.clustering.prototypes import (
    fit_prototypes,
    semi_supervised_kmeans,
    semi_supervised_linkage,
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


def long_tail():
    """A frequent novel class that varies along an arc, two rare narrow ones, and a known one."""
    generator = torch.Generator().manual_seed(4)
    classes = torch.tensor([1, 2, 3, 0]).repeat_interleave(torch.tensor([400, 35, 25, 60]))
    means = torch.eye(8)[torch.tensor([7, 0, 1, 2])]
    means[3, 1] = 0.45  # the rare ones lie close together
    points = means[classes] + 0.08 * torch.randn(len(classes), 8, generator=generator)
    points[classes == 1, 3] += torch.linspace(-0.8, 0.8, 400)
    labels = torch.where((classes == 0) & (torch.arange(len(classes)) % 2 == 0), 0, -1)
    return F.normalize(points, dim=1), classes, labels


def test_linkage_finds_a_long_tail_where_kmeans_splits_the_head():
    points, classes, labels = long_tail()
    found = semi_supervised_linkage(points, labels, 1, 4, min_share=0.01)
    assert (found == classes).float().mean() > 0.98  # novel clusters from large to small
    centers = semi_supervised_kmeans(points, labels, 1, 4, torch.Generator().manual_seed(0))
    nearest = (points @ centers.T).argmax(dim=1)
    assert len(nearest[classes == 1].unique()) > 1


def test_linkage_does_not_count_outliers_as_classes():
    points, classes, labels = long_tail()
    strays = F.normalize(-points[:3] + 0.3 * torch.eye(8)[5:8], dim=1)
    points = torch.cat([points, strays])
    labels = torch.cat([labels, torch.full((3,), -1)])
    found = semi_supervised_linkage(points, labels, 1, 4, min_share=0.01)
    assert (found[:-3] == classes).float().mean() > 0.98
    assert not torch.equal(found, semi_supervised_linkage(points, labels, 1, 4))


def test_linkage_keeps_what_it_was_told_and_known_classes_apart():
    points, classes = blobs(num_classes=4)
    labels = torch.where(torch.arange(len(classes)) % 3 == 0, classes % 2, -1)  # labels that lie
    found = semi_supervised_linkage(points, labels, 2, 4)
    assert torch.equal(found[labels >= 0], labels[labels >= 0])


@pytest.mark.parametrize("num_unlabeled", [0, 1, 2])
@pytest.mark.parametrize("known", [[], [0], [0, 0, 2]])
def test_linkage_with_few_samples_or_an_unseen_known_class(num_unlabeled, known):
    if not known and not num_unlabeled:
        return
    points, _ = blobs(per_class=1)
    labels = torch.tensor(known + [-1] * num_unlabeled)
    found = semi_supervised_linkage(points[: len(labels)], labels, 3, 5)
    assert found.shape == labels.shape
    assert found[: len(known)].tolist() == known
    assert bool((found >= 0).all())
    assert bool((found < 5).all())


def test_stretch_keeps_a_look_alike_apart_from_a_known_class():
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([0, 1, 2]).repeat_interleave(40)
    means = torch.eye(8)[[0, 0, 2]]
    means[1, 1] = 0.65  # novel, near the known class; the other novel class varies more
    points = means[classes] + 0.05 * torch.randn(120, 8, generator=generator)
    points[classes == 2, 5] += torch.tensor([-0.35, 0.35]).repeat(20)
    points = F.normalize(points, dim=1)
    labels = torch.where((classes == 0) & (torch.arange(120) % 2 == 0), 0, -1)
    plain = semi_supervised_linkage(points, labels, 1, 3)
    stretched = semi_supervised_linkage(points, labels, 1, 3, labeled_stretch=2.0)
    assert bool((plain[classes == 1] == 0).all())
    assert bool((stretched[classes == 1] != 0).all())
    assert bool((stretched[classes == 0] == 0).all())
