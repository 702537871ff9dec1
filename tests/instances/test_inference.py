"""Detect: which images, pasted masks, ids, repeatability."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scene_tables import TINY, memory_tensors, rectangle_scenes

from gcdis_ray.instances.detector_config import ClassifierConfig
from gcdis_ray.instances.inference import Detect, detector_spec, load_detector, paste
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.masks.coco_rle import check_rle, decode
from gcdis_ray.store.schemas import check_schema


def _slow_paste(mask, box, height, width):
    """One pixel at a time."""
    side = len(mask)
    x0, y0, x1, y1 = (float(v) for v in box)
    full = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if not (x0 < x + 0.5 < x1 and y0 < y + 0.5 < y1):
                continue
            u = min(max((x + 0.5 - x0) / (x1 - x0) * side - 0.5, 0), side - 1)
            v = min(max((y + 0.5 - y0) / (y1 - y0) * side - 0.5, 0), side - 1)
            i, j = min(int(v), side - 2), min(int(u), side - 2)
            a, b = v - i, u - j
            value = (1 - a) * ((1 - b) * mask[i][j] + b * mask[i][j + 1]) + a * (
                (1 - b) * mask[i + 1][j] + b * mask[i + 1][j + 1]
            )
            full[y, x] = value >= 0.5
    return full


@examples(40)
@given(seed=st.integers(0, 10**6))
def test_paste_equals_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0.1, 0.2, 0.85, 0.97], (5, 5)).astype(np.float32)
    corner = rng.uniform(0, 15, 2)
    box = np.concatenate([corner, corner + rng.uniform(0.3, 14, 2)]).clip(0, [24, 18, 24, 18])
    window, x0, y0 = paste(mask, box.astype(np.float32), 18, 24)
    full = np.zeros((18, 24), bool)
    full[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window
    slow = _slow_paste(mask.tolist(), box.astype(np.float32), 18, 24)
    assert np.mean(full != slow) < 0.005  # values that are 0.5 up to rounding


def test_paste_of_a_full_mask_is_its_box():
    window, x0, y0 = paste(np.ones((7, 7), np.float32), np.array([3.0, 4, 9, 8]), 20, 20)
    assert (x0, y0, window.shape, window.all()) == (3, 4, (4, 6), True)


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes(size=(48, 80))  # scaled for the net: boxes must be scaled back


@pytest.fixture(scope="module")
def detector():
    model = build_mask_rcnn(TINY, 3, 0, ClassifierConfig(kind="cosine"))
    spec = detector_spec(TINY, 3, ClassifierConfig(kind="cosine"))
    return memory_tensors(model.state_dict()), spec


def _run(detector, rectangles, **options):
    weights, spec = detector
    run = Detect(weights=weights, spec=spec, min_score=0.0, **options).open()
    shards = range(rectangles.images.num_shards)
    return [run(i, rectangles.images.shard(i))[options["gives"]] for i in shards]


class TestDetect:
    def test_predictions_of_one_split(self, detector, rectangles):
        shards = _run(detector, rectangles, split="validation", gives="predictions")
        assert [len(shard) > 0 for shard in shards] == [False, False, False, True]
        table = check_schema("predictions", shards[3])
        assert set(table["image_id"].to_pylist()) <= set(range(400, 406))
        assert set(table["class_index"].to_pylist()) <= {0, 1, 2}
        for row in table.to_pylist():
            assert (row["height_px"], row["width_px"]) == (48, 80)
            check_rle(row["mask_rle"], 48, 80)
            x0, y0, x1, y1 = row["bbox_xyxy"]
            assert 0 <= x0 < x1 <= 80
            assert 0 <= y0 < y1 <= 48
            outside = decode(row["mask_rle"], 48, 80)
            outside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = False
            assert not outside.any()

    def test_proposals(self, detector, rectangles):
        shards = _run(detector, rectangles, split="unlabeled", gives="proposals", max_per_image=4)
        assert [len(shard) > 0 for shard in shards] == [False, False, True, False]
        table = check_schema("proposals", shards[2])
        ids = table["proposal_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        per_image = np.unique(table["image_id"].to_numpy(), return_counts=True)[1]
        assert per_image.max() <= 4
        row = table.to_pylist()[0]
        assert decode(row["mask_rle"], 48, 80).sum() == row["area_px"]

    def test_repeats(self, detector, rectangles):
        options = {"split": "validation", "gives": "predictions"}
        first, again = _run(detector, rectangles, **options), _run(detector, rectangles, **options)
        assert all(a.equals(b) for a, b in zip(first, again, strict=True))

    def test_one_image_alone_gives_the_same(self, detector, rectangles):
        weights, spec = detector
        run = Detect(weights, spec, "validation", "predictions", min_score=0.0).open()
        images = rectangles.images.shard(3)
        both = run(3, images)["predictions"].to_pylist()
        last = run(3, images.slice(5, 1))["predictions"].to_pylist()
        assert last == [row for row in both if row["image_id"] == 405]


def test_weights_file_is_not_needed_to_infer(detector):
    weights, spec = detector
    moved = {"weights": "/nowhere/backbone.safetensors", "weights_sha256": "0" * 64}
    model = load_detector(weights, {**spec, "detector": spec["detector"] | moved})
    assert not model.training
