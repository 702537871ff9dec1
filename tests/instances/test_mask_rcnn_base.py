"""Mask R-CNN as a detector: answers in the pixels of the image, whatever size the net sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scene_tables import TINY

from gcdis_ray.instances.detector import Detector, Limits
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.mask_rcnn_base import padded_size
from gcdis_ray.instances.net_pixels import fitted_size, paste, resized
from gcdis_ray.masks.coco_rle import bbox_xyxy, check_rle, decode

SIZE = (48, 80)
NET_SIZE = fitted_size(*SIZE, (TINY.min_side_px, TINY.max_side_px))
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
LIMITS = Limits(min_score=0.0, nms_iou=0.5, max_per_image=20)


@pytest.fixture(scope="module")
def model():
    model = build_mask_rcnn(TINY, 3, seed=0).eval()
    with torch.no_grad():  # a mask that has both sides of one half in every box
        model.heads.mask_net[1].mask_fcn_logits.weight *= 50
    return model


def _net_image():
    assert NET_SIZE != SIZE
    return torch.from_numpy(resized(PIXELS, NET_SIZE)).permute(2, 0, 1)


def _per_net_px():
    return np.array([SIZE[1] / NET_SIZE[1], SIZE[0] / NET_SIZE[0]] * 2, np.float32)


def _pasted(mask, box):
    window, x0, y0 = paste(mask.numpy(), box, *SIZE)
    full = np.zeros(SIZE, bool)
    full[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]] = window
    return full


def test_finds_what_the_net_detects(model):
    detector: Detector = model
    found = detector.find(PIXELS, LIMITS)
    seen = model.detect([_net_image()], min_score=0.0, nms_iou=0.5, max_per_image=20)[0]
    boxes = seen.boxes_xyxy.numpy() * _per_net_px()
    masks = [_pasted(mask, box) for mask, box in zip(seen.masks, boxes, strict=True)]
    kept = [n for n, mask in enumerate(masks) if mask.any()]
    assert len(kept) > 0
    assert [one.bbox_xyxy for one in found] == [tuple(boxes[n].tolist()) for n in kept]
    assert [one.class_index for one in found] == seen.class_index[kept].tolist()
    assert [one.score for one in found] == seen.scores[kept].tolist()
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one, n in zip(found, kept, strict=True):
        assert (decode(check_rle(one.mask_rle, *SIZE), *SIZE) == masks[n]).all()


def test_by_the_batch_is_found_what_is_found_one_by_one(model, monkeypatch):
    """Sizes are mixed; those of one padded size share a batch, and all come back in order."""
    rng, sizes = np.random.default_rng(1), [SIZE, (80, 48), SIZE, (40, 80), (80, 48), SIZE]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    batches, detect = [], type(model).detect

    def note(self, images, **options):
        batches.append([tuple(image.shape[1:]) for image in images])
        return detect(self, images, **options)

    want = [model.find(pixels, LIMITS) for pixels in images]
    monkeypatch.setattr(type(model), "detect", note)
    found = model.find_in_batches(iter(images), LIMITS)
    assert sorted(map(len, batches)) == [1, 5]
    assert all(len({padded_size([size]) for size in batch}) == 1 for batch in batches)
    for one, other in zip(found, want, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(
            [a.bbox_xyxy for a in one], [b.bbox_xyxy for b in other], atol=1e-3
        )
        assert [a.class_index for a in one] == [b.class_index for b in other]
    assert model.find_all(iter(images), LIMITS) == want  # on a CPU, bit by bit


def test_limits(model):
    assert len(model.find(PIXELS, Limits(0.0, 0.5, max_per_image=3))) <= 3
    assert model.find(PIXELS, Limits(1.0, 0.5, 20)) == []
    box, rpn = (model.find(PIXELS, Limits(0.0, 1.0, 5, score)) for score in ("box", "rpn"))
    assert [one.score for one in box] != [one.score for one in rpn]


def test_masks_of_boxes_are_those_of_the_head_in_the_image(model):
    boxes = np.array([[4.5, 3, 40, 30], [30, 10.25, 79, 47], [10.6, 10, 11.4, 20]], np.float32)
    found = model.masks_of_boxes(PIXELS, boxes)
    seen = model.masks_in_boxes([_net_image()], [torch.from_numpy(boxes / _per_net_px())])[0]
    want = [_pasted(mask, box) for mask, box in zip(seen, boxes, strict=True)]
    assert found[2] is None  # no centre of a pixel lies in it
    for rle, mask, box in zip(found[:2], want[:2], boxes[:2], strict=True):
        assert (decode(rle, *SIZE) == mask).all()
        x0, y0, x1, y1 = bbox_xyxy(rle, *SIZE)
        assert (np.floor(box[:2]) <= [x0, y0]).all()
        assert (np.ceil(box[2:]) >= [x1, y1]).all()


def test_masks_of_boxes_by_the_batch_are_those_of_one_by_one(model, monkeypatch):
    rng, sizes = np.random.default_rng(2), [SIZE, (80, 48), SIZE, (40, 80)]
    corners = [rng.uniform(0, 20, (number, 2)) for number in (1, 3, 2, 4)]
    boxes = [np.concatenate([c, c + 18], axis=1).astype(np.float32) for c in corners]
    images = [
        (rng.integers(0, 256, (*size, 3), np.uint8), b)
        for size, b in zip(sizes, boxes, strict=True)
    ]
    batches, masks_in_boxes = [], type(model).masks_in_boxes

    def note(self, images, boxes):
        batches.append(len(images))
        return masks_in_boxes(self, images, boxes)

    want = [model.masks_of_boxes(pixels, b) for pixels, b in images]
    monkeypatch.setattr(type(model), "masks_in_boxes", note)
    found = model.masks_in_batches(iter(images))
    assert sorted(batches) == [1, 3]
    for size, one, other in zip(sizes, found, want, strict=True):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert np.mean(decode(a, *size) != decode(b, *size)) < 0.002
    assert model.masks_of_all_boxes(iter(images)) == want  # on a CPU, bit by bit


def test_pyramid_of_images_as_they_are(model):
    images = torch.randint(0, 256, (2, 3, 64, 96)).float()
    with torch.inference_mode():
        found = model.pyramid(images)
        want = model.backbone((images - model.mean) / model.std)
    assert len(found) == TINY.num_levels
    assert all(torch.equal(found[name], want[name]) for name in want)
    assert found["0"].shape == (2, TINY.fpn_channels, 16, 24)
