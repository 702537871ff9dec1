from __future__ import annotations

import numpy as np
import pytest
import torch

from gcdis_ray.data.crops.augment import normalize, plain_view, random_view, with_mask, wobble
from gcdis_ray.data.crops.augment_config import CropAugmentConfig

STILL = {
    "min_area": 1.0,
    "max_aspect": 1.0,
    "flip": False,
    "jitter": 0.0,
    "grey": 0.0,
    "blur": 0.0,
}
GEOMETRY = STILL | {"min_area": 0.2, "max_aspect": 1.5, "flip": True, "rotation_deg": 30.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops(num: int = 6, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(9)
    images = torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(num, 1, side, side, dtype=torch.uint8)
    for i in range(num):
        masks[i, :, 2 : 8 + i, 12 - i : 20] = 255
    return images, masks


def config(**changes) -> CropAugmentConfig:
    return CropAugmentConfig.model_validate(STILL | changes)


def test_nothing_switched_on_changes_nothing():
    images, masks = crops()
    views, view_masks = random_view(images, masks, 24, config(), seeded())
    torch.testing.assert_close(views, normalize(images.float() / 255), atol=1e-4, rtol=1e-4)
    assert torch.equal(view_masks, (masks > 0).float())
    plain, plain_masks = plain_view(images, masks, 24)
    torch.testing.assert_close(plain, views, atol=1e-4, rtol=1e-4)
    assert torch.equal(plain_masks, view_masks)


@pytest.mark.parametrize("side", [16, 32])
def test_same_seed_same_view_and_everything_on_is_finite(side):
    everything = CropAugmentConfig.model_validate(
        GEOMETRY
        | dict(jitter=1, hue=0.5, invert=0.5, grey=0.3, blur=0.7, noise=0.1, erase=0.5)
        | dict(background=0.5, elastic=0.1, mask_wobble=0.5)
    )
    images, masks = crops()
    first, again = (random_view(images, masks, side, everything, seeded(3)) for _ in range(2))
    other, _ = random_view(images, masks, side, everything, seeded(4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])  # noqa: PT018
    assert not torch.equal(first[0], other)
    assert first[0].isfinite().all()
    assert first[1].unique().tolist() == [0.0, 1.0]


def test_the_mask_moves_with_the_image():
    """An image that shows its own mask still does after geometry, but for pixels on the edge."""
    _, masks = crops(40)
    images = masks.expand(-1, 3, -1, -1).contiguous()
    geometry = CropAugmentConfig.model_validate(GEOMETRY | {"elastic": 0.05})
    views, view_masks = random_view(images, masks, 32, geometry, seeded())
    low, high = normalize(torch.zeros(1, 3, 1, 1)), normalize(torch.ones(1, 3, 1, 1))
    shown = ((views - low) / (high - low) > 0.5).float()[:, :1]
    assert (shown - view_masks).abs().mean() < 0.005


def test_a_quarter_of_the_mask_survives_every_window():
    images, masks = crops(6)
    images, masks = images.repeat(60, 1, 1, 1), masks.repeat(60, 1, 1, 1)
    tight = CropAugmentConfig.model_validate(GEOMETRY | {"min_area": 0.05, "rotation_deg": 0})
    _, kept = random_view(images, masks, 48, tight, seeded())
    assert (kept.mean(dim=(1, 2, 3)) > 0).all()  # never an empty attention target
    loose = CropAugmentConfig.model_validate({**tight.model_dump(), "min_mask": 0.0})
    _, free = random_view(images, masks, 48, loose, seeded())
    assert (free.mean(dim=(1, 2, 3)) == 0).any()  # the check does something


def test_flip_happens_only_when_asked():
    images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255  # light left half
    masks = torch.full((64, 1, 16, 16), 255, dtype=torch.uint8)

    def left_is_light(flip: bool) -> list[bool]:
        views, _ = random_view(images, masks, 16, config(flip=flip), seeded())
        return (views[..., :4].mean(dim=(1, 2, 3)) > 0).tolist()

    assert all(left_is_light(flip=False))
    assert 10 < sum(left_is_light(flip=True)) < 54


def test_grey_and_negative():
    images, masks = crops()
    grey, _ = random_view(images, masks, 24, config(grey=1.0), seeded())
    back = grey * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    back = back + torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert (back - back.mean(dim=1, keepdim=True)).abs().max() < 1e-5
    negative, _ = random_view(images, masks, 24, config(invert=1.0), seeded())
    expected = normalize(1 - images.float() / 255)
    torch.testing.assert_close(negative, expected, atol=1e-4, rtol=1e-4)


def test_hue_keeps_grey_pixels_grey():
    images, masks = crops()
    flat = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    turned, _ = random_view(
        flat, masks, 24, config(jitter=1.0, hue=0.5, brightness=0, contrast=0), seeded()
    )
    torch.testing.assert_close(turned, normalize(flat.float() / 255), atol=1e-3, rtol=1e-3)


def test_background_comes_from_another_crop_and_the_object_stays():
    images = torch.arange(8, dtype=torch.uint8).mul(30).view(8, 1, 1, 1).expand(8, 3, 16, 16)
    masks = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)
    masks[..., 4:12, 4:12] = 255
    views, _ = random_view(images.contiguous(), masks, 16, config(background=1.0), seeded(1))
    original = normalize(images.float() / 255)
    torch.testing.assert_close(views[..., 5:11, 5:11], original[..., 5:11, 5:11])
    moved = (views[..., 0, 0] - original[..., 0, 0]).abs().amax(dim=1) > 0.1
    assert moved.sum() >= 5


def test_wobble_grows_and_shrinks_by_a_pixel_at_most():
    mask = torch.zeros(200, 1, 12, 12)
    mask[..., 4:8, 4:8] = 1
    moved = wobble(mask, 1.0, seeded())
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    areas = moved.sum(dim=(1, 2, 3))
    assert 4 <= areas.min() < 16 < areas.max() <= 36
    assert torch.equal(wobble(mask, 0.0, seeded()), mask)


def test_mask_as_fourth_channel():
    images, masks = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    joined = with_mask(images, masks)
    assert joined.shape == (2, 4, 4, 4)
    assert np.unique(joined[:, 3].numpy()).tolist() == [1.0]
