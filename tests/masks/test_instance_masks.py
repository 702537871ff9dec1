"""Annotated and made masks side by side: counts, filling in, where a crop's mask comes from."""

from __future__ import annotations

import pyarrow as pa
from scene_tables import memory_table, rectangle_scenes
from tables import SCHEMAS

from gcdis_ray.instances.training_images import read_instances
from gcdis_ray.masks.instance_masks import MaskCount, count_masks, count_origins, with_made_masks


def _rows():
    scenes = rectangle_scenes(["labeled"], per_shard=2)
    return scenes.instances.shard(0).to_pylist()


def _made(rows, origin="model"):
    keep = ("instance_id", "image_id", "mask_rle")
    return [{name: row[name] for name in keep} | {"area_px": 7.0, "origin": origin} for row in rows]


def _table(name, rows):
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])


def test_crowds_need_no_mask():
    rows = _rows()
    assert count_masks(memory_table("instances", [rows])) == MaskCount(4, 0)
    rows[0]["mask_rle"] = rows[1]["mask_rle"] = None
    rows[1]["iscrowd"] = rows[2]["iscrowd"] = True
    assert count_masks(memory_table("instances", [rows, []])) == MaskCount(1, 1)


def test_made_masks_fill_gaps_alone():
    rows = _rows()
    whole = _table("instances", rows)
    made = _table("instance_masks", _made([rows[0], rows[1]]))
    bare = _table(
        "instances", [rows[0] | {"mask_rle": None}, rows[1], rows[2] | {"mask_rle": None}]
    )
    filled = with_made_masks(bare, made)
    assert filled.schema.equals(whole.schema)
    assert filled["mask_rle"].to_pylist() == [rows[0]["mask_rle"], rows[1]["mask_rle"], None]
    assert filled["area_px"].to_pylist() == [7.0, rows[1]["area_px"], rows[2]["area_px"]]
    assert with_made_masks(whole, None) is whole
    assert with_made_masks(whole, made).equals(whole)
    few = bare.select(["mask_rle", "instance_id"])
    assert with_made_masks(few, made).column_names == ["mask_rle", "instance_id"]


def test_an_object_that_is_its_image_has_no_other_mask():
    rows = _rows()
    told = _table("instances", [rows[0], rows[1] | {"mask_rle": None}])
    full = _table("instance_masks", _made(rows[:2], "image"))
    whole = _table("instance_masks", [m | {"mask_rle": "all"} for m in full.to_pylist()])
    found = with_made_masks(told, whole).to_pylist()
    for row, was in zip(found, rows, strict=False):
        assert row["mask_rle"] == "all"
        assert row["area_px"] == 7
        assert row["bbox_xyxy"] == [0, 0, was["width_px"], was["height_px"]]
    narrow = with_made_masks(told.select(["instance_id", "mask_rle", "bbox_xyxy"]), whole)
    assert narrow["bbox_xyxy"].to_pylist() == told["bbox_xyxy"].to_pylist()


def test_a_detector_reads_made_masks_only_if_given():
    rows = _rows()
    bare = memory_table("instances", [[row | {"mask_rle": None} for row in rows], []])
    made = memory_table("instance_masks", [_made(rows[:3]), []])
    found = read_instances(bare, made)
    rles = [rle for image_id in sorted(found) for rle in found[image_id].rles]
    assert rles == [row["mask_rle"] for row in rows[:3]] + [None]
    assert {rle for one in read_instances(bare).values() for rle in one.rles} == {None}


def test_origins_of_labeled_crops():
    rows = _rows()
    crop = {
        "image_id": 1, "window_xyxy": [0] * 4, "bbox_xyxy": [0.0] * 4, "jpeg": b"", "mask_png": b"",
    }  # fmt: skip
    sources = [(rows[i]["instance_id"], 0) for i in range(4)] + [(rows[0]["instance_id"], -1)]
    crops = [
        crop | {"crop_index": n, "source_id": source, "class_index": index}
        for n, (source, index) in enumerate(sources)
    ]
    table = memory_table("crops", [crops, []])
    made = _made(rows[:2]) + _made(rows[2:3], "box")
    assert count_origins(table, memory_table("instance_masks", [made, []])) == {
        "annotated": 1,
        "model": 2,
        "box": 1,
        "image": 0,
    }
    assert count_origins(table, None) == {"annotated": 4, "model": 0, "box": 0, "image": 0}
