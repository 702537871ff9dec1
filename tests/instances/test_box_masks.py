"""Masks made for boxes: what the mask head sees in the true box, or the box itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from scene_tables import TINY, memory_tensors, rectangle_scenes

from gcdis_ray.data.images.image_check import decode_rgb
from gcdis_ray.instances.box_masks import ModelMasks, RectangleMasks
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.masks.coco_rle import decode
from gcdis_ray.store.schemas import INSTANCE_MASKS, check_schema

SIZE = (48, 80)  # scaled for the net: boxes must be scaled with it


@pytest.fixture(scope="module")
def scenes():
    return rectangle_scenes(["labeled"], per_shard=3, size=SIZE)


def _bare(scenes, keep=()):
    table = scenes.instances.shard(0)
    rles = [
        rle if number in keep else None
        for number, rle in zip(
            table["instance_id"].to_pylist(), table["mask_rle"].to_pylist(), strict=True
        )
    ]
    place = table.schema.get_field_index("mask_rle")
    return table.set_column(place, table.schema.field(place), pa.array(rles, pa.string()))


def test_rectangles_are_the_pixels_of_the_box(scenes):
    keep = {scenes.instances.shard(0)["instance_id"].to_pylist()[2]}
    done = RectangleMasks().open("cpu")(0, _bare(scenes, keep))
    table = check_schema("instance_masks", done.tables["instance_masks"], INSTANCE_MASKS)
    truth = {r["instance_id"]: r for rows in scenes.truth.values() for r in rows}
    assert set(table["instance_id"].to_pylist()) == set(truth) - keep
    for row in table.to_pylist():
        assert row["mask_rle"] == truth[row["instance_id"]]["mask_rle"]  # they are rectangles
        assert row["area_px"] == truth[row["instance_id"]]["area_px"]
        assert row["origin"] == "box"
    assert done.counts == {}


def test_a_box_without_a_pixel_is_counted(scenes):
    rows = _bare(scenes).to_pylist()
    rows[0]["bbox_xyxy"] = [10.6, 10.0, 11.4, 20.0]
    table = _bare(scenes).from_pylist(rows, schema=_bare(scenes).schema)
    done = RectangleMasks().open("cpu")(0, table)
    assert done.tables["instance_masks"].num_rows == len(rows) - 1
    assert done.counts == {"empty_masks": 1}


class TestModel:
    @pytest.fixture(scope="class")
    def detector(self):
        model = build_mask_rcnn(TINY, 1, seed=0)
        with torch.no_grad():  # a mask that has both sides of one half in every box
            model.heads.mask_net[1].mask_fcn_logits.weight *= 50
        return model.eval()

    def _fill(self, detector, images, instances):
        fill = ModelMasks(memory_tensors(detector.state_dict()), detector_spec(TINY, 1)).open("cpu")
        return fill(0, images, instances)

    def test_is_what_the_head_sees_in_the_box(self, scenes, detector):
        images, bare = scenes.images.shard(0), _bare(scenes)
        done = self._fill(detector, images, bare)
        table = check_schema("instance_masks", done.tables["instance_masks"], INSTANCE_MASKS)
        assert set(table["origin"].to_pylist()) == {"model"}
        found = {row["instance_id"]: row for row in table.to_pylist()}
        empty = 0
        for image in images.to_pylist():
            pixels = decode_rgb(image["bytes"])
            for row in scenes.truth[image["image_id"]]:
                want = detector.masks_of_boxes(pixels, np.array([row["bbox_xyxy"]], np.float32))[0]
                if want is None:
                    empty += 1
                    assert row["instance_id"] not in found
                    continue
                mine, mask = found[row["instance_id"]], decode(want, *SIZE)
                assert np.mean(decode(mine["mask_rle"], *SIZE) != mask) < 0.005
                assert mine["area_px"] == decode(mine["mask_rle"], *SIZE).sum()
        assert done.counts.get("empty_masks", 0) == empty
        assert found

    def test_annotated_masks_and_other_images_are_left_alone(self, scenes, detector):
        images, table = scenes.images.shard(0), scenes.instances.shard(0)
        numbers = table["instance_id"].to_pylist()
        some = self._fill(detector, images, _bare(scenes, keep=set(numbers[:2])))
        every = self._fill(detector, images, _bare(scenes))
        rest = [
            r for r in every.tables["instance_masks"].to_pylist() if r["instance_id"] in numbers[2:]
        ]
        assert some.tables["instance_masks"].to_pylist() == rest
        assert self._fill(detector, images, table).tables["instance_masks"].num_rows == 0
