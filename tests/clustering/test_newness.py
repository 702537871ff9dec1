"""What is new, on points whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.clustering.newness import (
    choose_threshold,
    height_of_classes,
    mean_distance,
    neighbours,
    new_classes,
)
from gcdis_ray.errors import DataError


def blobs(num_classes: int, each: int, seed: int, spread: float = 0.5, dims: int = 24):
    """Unit points of classes around random directions, and their classes."""
    centres = torch.randn(num_classes, dims, generator=torch.Generator().manual_seed(7))
    noise = torch.randn(num_classes * each, dims, generator=torch.Generator().manual_seed(seed))
    classes = torch.arange(num_classes).repeat_interleave(each)
    return F.normalize(
        F.normalize(centres, dim=1)[classes] * dims**0.5 + spread * noise, dim=1
    ), classes


def test_neighbours_are_those_of_all_pairs():
    points, classes = blobs(4, 6, 1)
    near, which = neighbours(points, points, 3, itself_M=torch.arange(24))
    pairs = torch.cdist(points, points).fill_diagonal_(torch.inf)
    torch.testing.assert_close(near, pairs.topk(3, largest=False).values, atol=2e-3, rtol=0)
    assert not (which == torch.arange(24)[:, None]).any()
    _, others = neighbours(points, points, 3, apart=(classes, classes))
    assert (classes[others] != classes[:, None]).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    points, classes = blobs(4, 6, 1)
    whole = neighbours(points, points, 3, itself_M=torch.arange(24), apart=(classes, classes))
    monkeypatch.setattr("gcdis_ray.clustering.newness._PRODUCTS", 1)
    parts = neighbours(points, points, 3, itself_M=torch.arange(24), apart=(classes, classes))
    torch.testing.assert_close(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_what_is_not_there_is_no_distance():
    near = torch.tensor([[1.0, 3.0, torch.inf], [torch.inf] * 3])
    assert mean_distance(near).tolist() == [2.0, np.inf]


def test_the_threshold_lies_between_classes_in_place_and_withheld():
    points, classes = blobs(8, 20, 1)
    found = choose_threshold(points, classes)
    assert found.classes == 8
    assert found.balanced_accuracy > 0.99
    new, label = blobs(12, 10, 2)
    away = mean_distance(neighbours(new, points)[0]) > found.value
    assert (away == (label >= 8)).double().mean() > 0.97


def test_a_threshold_needs_two_classes_with_two_crops():
    points, classes = blobs(3, 4, 1)
    with pytest.raises(DataError, match="fewer than two classes"):
        choose_threshold(points[:5], classes[:5])


def test_the_height_is_that_at_which_classes_are_clusters():
    points, classes = blobs(6, 15, 1)
    cosine = points @ points.T
    same = classes[:, None] == classes[None]
    assert (
        (1 - cosine[same]).mean() < height_of_classes(points, classes) < (1 - cosine[~same]).max()
    )


def made(new: torch.Tensor, kept: torch.Tensor, classes: torch.Tensor, fitting=None, **how):
    fitting = kept[:0] if fitting is None else fitting
    return new_classes(new, kept, classes, fitting, **{"min_size": 5, "most": 5000, **how})


def test_candidates_that_are_alike_are_classes_from_large_to_small():
    kept, classes = blobs(8, 20, 1)
    new, label = blobs(10, 12, 2)
    rows = torch.cat([torch.nonzero(label == 8).flatten()[:7], torch.nonzero(label == 9).flatten()])
    found = made(new[rows], kept, classes)
    assert found.num_classes == 2
    assert found.cluster_N.tolist() == [1] * 7 + [0] * 12
    assert (found.own_N < found.old_N).all()


def test_odd_crops_of_a_class_are_no_new_one():
    kept, classes = blobs(8, 30, 1)
    odd, label = blobs(8, 30, 3, spread=0.9)  # farther from the middle, in all directions
    found = made(odd[label < 3], kept, classes)
    assert found.num_classes == 0


@pytest.mark.parametrize("num", [0, 1, 4])
def test_too_few_make_no_class(num: int):
    kept, classes = blobs(8, 20, 1)
    new, label = blobs(9, 12, 2)
    found = made(new[label == 8][:num], kept, classes)
    assert found.cluster_N.tolist() == [-1] * num
    assert found.old_N.shape == (num,)


def test_of_many_candidates_some_are_joined_and_the_rest_follow():
    kept, classes = blobs(8, 20, 1)
    new, label = blobs(10, 40, 2)
    new, label = new[label >= 8], label[label >= 8]
    found = made(new, kept, classes, most=30)
    assert found.num_classes == 2
    assert len({*zip(found.cluster_N.tolist(), label.tolist(), strict=True)}) == 2


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_many_odd_crops_are_no_new_class_for_their_number(share: float):
    """New images may have many more crops of a class than those that are kept of it."""
    kept, classes = blobs(8, 12, 1, spread=1.1)
    new, _ = blobs(8, 300, 2, spread=1.1)
    beyond = mean_distance(neighbours(new, kept)[0]) > choose_threshold(kept, classes).value
    fitting = new[~beyond]
    assert made(new[beyond], kept, classes).num_classes > 3
    drawn = fitting[torch.randperm(len(fitting), generator=torch.Generator().manual_seed(0))]
    drawn = drawn[: round(share * len(fitting))]
    assert made(new[beyond], kept, classes, drawn, share=share).num_classes == 0
