"""Detect: which images, full-image masks, ids, repeatability."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from scene_tables import TINY, memory_tensors, rectangle_scenes
from tables import SCHEMAS

from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.errors import ArtifactError
from gcdis_ray.instances import inference
from gcdis_ray.instances.detector import Found, Limits
from gcdis_ray.instances.detector_config import ClassifierConfig
from gcdis_ray.instances.inference import Detect, detector_spec, load_detector
from gcdis_ray.instances.mask_rcnn import TorchvisionMaskRCNN, build_mask_rcnn
from gcdis_ray.instances.mask_rcnn_base import MaskRCNN
from gcdis_ray.masks.coco_rle import check_rle, decode, encode
from gcdis_ray.store.schemas import check_schema

original = TorchvisionMaskRCNN.detect


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
    run = Detect(weights=weights, spec=spec, min_score=0.0, **options).open("cpu")
    shards = range(rectangles.images.num_shards)
    return [run(i, rectangles.images.shard(i))[options["gives"]] for i in shards]


class TestDetect:
    def test_predictions_of_one_split(self, detector, rectangles):
        shards = _run(detector, rectangles, split="validation", gives="predictions")
        assert [len(shard) > 0 for shard in shards] == [False, False, False, True]
        table = check_schema("predictions", shards[3], SCHEMAS["predictions"])
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
        table = check_schema("proposals", shards[2], SCHEMAS["proposals"])
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

    def test_on_a_cpu_images_go_one_by_one_and_a_table_of_them_is_what_find_says(
        self, detector, rectangles
    ):
        weights, spec = detector
        model = load_detector(weights, spec, "cpu")
        looked = []
        run = Detect(weights, spec, "validation", "predictions", min_score=0.0)
        with mock.patch.object(TorchvisionMaskRCNN, "detect", autospec=True) as detect:
            detect.side_effect = lambda self, images, **options: (
                looked.append(len(images)) or (original(self, images, **options))
            )
            found = run.open("cpu")(3, rectangles.images.shard(3))["predictions"].to_pylist()
        assert looked == [1] * 6
        shown = rectangles.images.shard(3)
        want = [
            (image_id, one.bbox_xyxy, one.mask_rle, np.float32(one.score))
            for image_id, file in zip(
                shown["image_id"].to_pylist(), ImageFiles().read(shown), strict=True
            )
            for one in model.find(file.pixels(), Limits(0.0, 0.5, 100))
        ]
        columns = ("image_id", "bbox_xyxy", "mask_rle", "score")
        assert [tuple(row[name] for name in columns) for row in found] == [
            (image_id, list(box), rle, score) for image_id, box, rle, score in want
        ]

    def test_one_image_alone_gives_the_same(self, detector, rectangles):
        weights, spec = detector
        run = Detect(weights, spec, "validation", "predictions", min_score=0.0).open("cpu")
        images = rectangles.images.shard(3)
        both = run(3, images)["predictions"].to_pylist()
        last = run(3, images.slice(5, 1))["predictions"].to_pylist()
        assert last == [row for row in both if row["image_id"] == 405]


class Halves:
    """A detector without boxes: two objects, whose masks are the halves of the image."""

    config = TINY

    def find(self, pixels, limits):
        height, width = pixels.shape[:2]
        mask = np.zeros((height, width), bool)
        mask[: height // 2] = True
        return [
            Found((0.0, 0.0, 1.0, 1.0), number, limits.min_score, encode(half))
            for number, half in enumerate([mask, ~mask])
        ]

    def find_all(self, images, limits):
        return [self.find(pixels, limits) for pixels in images]

    def masks_of_boxes(self, pixels, boxes_xyxy):
        raise NotImplementedError

    def masks_of_all_boxes(self, images):
        raise NotImplementedError

    def pyramid(self, images_N3HW):
        raise NotImplementedError


@pytest.mark.parametrize("gives", ["predictions", "proposals"])
def test_any_detector_will_do(detector, rectangles, monkeypatch, gives):
    monkeypatch.setattr(inference, "load_detector", lambda weights, spec, device: Halves())
    run = Detect(*detector, "validation", gives, min_score=0.25).open("cpu")
    rows = check_schema(
        gives, run(3, rectangles.images.shard(3))[gives], SCHEMAS[gives]
    ).to_pylist()
    assert [row["image_id"] for row in rows] == [400 + n // 2 for n in range(12)]
    for n, row in enumerate(rows):
        low = n % 2
        assert row["score" if gives == "predictions" else "objectness"] == 0.25
        assert row.get("class_index", low) == low
        assert row.get("area_px", 24 * 80) == 24 * 80
        mask = decode(row["mask_rle"], 48, 80)
        assert (mask[:24].all(), mask[24:].all()) == (not low, bool(low))
        assert mask.sum() == 24 * 80


def test_unknown_kind_is_refused(detector):
    weights, spec = detector
    with pytest.raises(ArtifactError, match=r"kind 'solo'"):
        load_detector(weights, {**spec, "kind": "solo"}, "cpu")


def test_weights_file_is_not_needed_to_infer(detector):
    weights, spec = detector
    moved = {"weights": "/nowhere/backbone.safetensors", "weights_sha256": "0" * 64}
    model = load_detector(weights, {**spec, "detector": spec["detector"] | moved}, "cpu")
    assert isinstance(model, MaskRCNN)
    assert not model.training
