from __future__ import annotations

import torch

from gcdis_ray.data.crops.augment import random_view
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.upload import upload


def crops(num: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (num, 12, 10)  # images with channels last in memory, as a store gives them
    images = torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 2, (num, 1, *shape[1:]), generator=generator, dtype=torch.uint8)
    return images.permute(0, 3, 1, 2), 255 * masks


def test_what_arrives_is_what_was_sent():
    images, masks = crops()
    for given in (images, images.contiguous()):
        there = upload(given, masks, torch.device("cpu"))
        assert torch.equal(there[0], images)
        assert torch.equal(there[1], masks)
        assert there[0].untyped_storage().data_ptr() == there[1].untyped_storage().data_ptr()
    assert [tensor.is_meta for tensor in upload(images, masks, torch.device("meta"))] == [True] * 2


def test_views_are_rendered_where_the_crops_are():
    """The same draw, whoever renders: backgrounds are swapped there, too."""
    config = CropAugmentConfig.model_validate({"background": 0.5, "erase": 0.5})
    images, masks = crops()

    def view(device: str | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        there = upload(images, masks, torch.device(device)) if device else None
        found = random_view(images, masks, 8, config, generator, there)
        return *found, torch.rand(1, generator=generator)

    here, again, away = view(None), view("cpu"), view("meta")
    assert torch.equal(here[0], again[0])
    assert torch.equal(here[1], again[1])
    assert [tuple(tensor.shape) for tensor in away[:2]] == [(5, 3, 8, 8), (5, 1, 8, 8)]
    assert away[0].is_meta
    assert here[2] == again[2] == away[2]  # what is drawn after does not depend on the device
