"""Every image as one object."""

from __future__ import annotations

import pytest
from scene_tables import memory_table, rectangle_scenes

from gcdis_ray.errors import DataError
from gcdis_ray.instances.whole_images import WholeImages, check_one_object
from gcdis_ray.masks.coco_rle import area, bbox_xyxy
from gcdis_ray.store.artifacts import Table


def one_an_image(instances: Table, crowds: bool = False) -> Table:
    """The first object of every image; with ``crowds`` the second one as a crowd."""
    shards = []
    for shard in instances.iter_shards():
        rows = shard.to_pylist()
        more = [row | {"iscrowd": True} for row in rows[1::2]] if crowds else []
        shards.append([*rows[::2], *more])
    return memory_table("instances", shards)


def test_the_image_is_the_object():
    scenes = rectangle_scenes(["labeled", "unlabeled", "validation"], per_shard=2, size=(40, 64))
    instances = one_an_image(scenes.instances, crowds=True)
    run = WholeImages().open("cpu")
    found = [run(n, scenes.images.shard(n), instances.shard(n)) for n in range(3)]
    assert [len(each["proposals"]) for each in found] == [0, 2, 0]
    assert [len(each["instance_masks"]) for each in found] == [2, 0, 0]
    for row in found[1]["proposals"].to_pylist():
        assert row["bbox_xyxy"] == [0, 0, 64, 40]
        assert area(row["mask_rle"], 40, 64) == row["area_px"] == 40 * 64
        assert bbox_xyxy(row["mask_rle"], 40, 64) == (0, 0, 64, 40)
        assert (row["objectness"], row["origin"]) == (1, "image")
    for row in found[0]["instance_masks"].to_pylist():
        assert area(row["mask_rle"], 40, 64) == row["area_px"] == 40 * 64
    ids = found[1]["proposals"]["proposal_id"].to_pylist()
    assert len(set(ids)) == 2


def test_several_objects_in_an_image():
    scenes = rectangle_scenes(["labeled", "unlabeled"], per_shard=5)
    check_one_object(scenes.images, one_an_image(scenes.instances, crowds=True), "here")
    with pytest.raises(DataError) as caught:
        check_one_object(scenes.images, scenes.instances, "here")
    said = str(caught.value)
    assert "5 labeled images have several objects (2 in 100.png, 2 in 101.png" in said
    assert "here" in said
