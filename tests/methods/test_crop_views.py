"""Views of stored crops: in order, with the mask if wanted, repeatable."""

from __future__ import annotations

import pytest
import torch
from toy_discovery import Crops

from gcdis_ray.data.crops.augment import plain_view
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods import crop_views
from gcdis_ray.methods.crop_views import CropViews

STORE = CropStore(Crops([0] * 7).table, 20, budget_mb=0)


def test_plain_views_come_in_order_some_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crop_views, "_PLAIN_ROWS", 2)
    rows = torch.tensor([5, 0, 3, 3, 6])
    images, masks = plain_view(*STORE.get(rows), 16)
    found = list(CropViews(STORE, 16, mask_input=False).plain(rows))
    assert [len(view) for view in found] == [2, 2, 1]
    assert torch.equal(torch.cat(found), images)
    found = list(CropViews(STORE, 16, mask_input=True).plain(rows))
    assert torch.equal(torch.cat(found), torch.cat([images, 2 * masks - 1], dim=1))
    assert list(CropViews(STORE, 16, mask_input=True).plain(rows[:0])) == []


def test_random_views_differ_and_are_of_their_generator():
    views, augment = CropViews(STORE, 16, mask_input=False), CropAugmentConfig()
    rows = torch.arange(7)
    first, again = (
        views.random(rows, 3, augment, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert len(first) == 3
    for (images, masks), (same, _) in zip(first, again, strict=True):
        assert images.shape == (7, 3, 16, 16)
        assert masks.shape == (7, 1, 16, 16)
        assert torch.equal(images, same)
    assert not torch.equal(first[0][0], first[1][0])
