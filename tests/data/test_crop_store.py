from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from gcdis_ray.data.crop_store import CropStore, decode_crops
from gcdis_ray.errors import DataError


def encoded(height: int, width: int, seed: int) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 255, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return cv2.imencode(".png", image)[1].tobytes(), cv2.imencode(".png", mask)[1].tobytes()


def table() -> pa.Table:
    pairs = [encoded(20 + i, 30, i) for i in range(5)]
    return pa.table({"jpeg": [p[0] for p in pairs], "mask_png": [p[1] for p in pairs]})


def test_kept_and_decoded_on_demand_are_the_same():
    rows = torch.tensor([4, 0, 0, 2])
    kept, lazy = CropStore(table(), 16, budget_mb=10), CropStore(table(), 16, budget_mb=0)
    for a, b in zip(kept.get(rows), lazy.get(rows), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.uint8


def test_colours_are_rgb_and_masks_stay_two_valued():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 200  # OpenCV's order: red
    png = cv2.imencode(".png", image)[1].tobytes()
    images, masks = decode_crops([png], [encoded(9, 7, 0)[1]], 12)
    assert images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert masks.unique().tolist() == [0, 255]
    assert images.shape == (1, 3, 12, 12)


def test_broken_bytes_are_named():
    with pytest.raises(DataError, match="no JPEG"):
        decode_crops([b"nothing"], [encoded(4, 4, 0)[1]], 8)


def test_no_crops():
    images, masks = CropStore(table().slice(0, 0), 16, budget_mb=1).get(torch.arange(0))
    assert images.shape == (0, 3, 16, 16) and masks.shape == (0, 1, 16, 16)  # noqa: PT018
