"""Objects without a mask, areas to ignore and masks without a pixel, in each format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO

from gcdis_ray.exporting import export as exporting
from gcdis_ray.exporting.classes import ExportedClass
from gcdis_ray.exporting.export import COCO_FILE, Wanted, export
from gcdis_ray.exporting.objects import ExportedImage, ExportedObject
from gcdis_ray.exporting.run_objects import Limits
from gcdis_ray.masks.coco_rle import encode

SIZE = (20, 30)


class Odd:
    """An :class:`ObjectSet` of one image, whose id is 0."""

    num_shards = 1
    classes = (ExportedClass(0, 1, "cat", True), ExportedClass(1, 2, "novel 1", False))

    def listed(self) -> Iterator[pa.Table]:
        yield pa.table({"image_id": [0], "uri": ["a/1.jpg"]})

    def least_id(self) -> int:
        return 0

    def images(self, shard: int, *, files: bool) -> Iterator[ExportedImage]:
        mask = np.zeros(SIZE, bool)
        empty = encode(mask)
        mask[2:9, 3:12] = mask[12:18, 20:29] = True
        objects = [
            ExportedObject(0, (3, 2, 12.5, 9), None),
            ExportedObject(0, (0, 0, 30, 20), encode(mask), crowd=True),
            ExportedObject(1, (0, 0, 1, 1), empty, 0.5),
            ExportedObject(1, (3, 2, 29, 18), encode(mask), 0.75),
        ]
        yield ExportedImage(0, "a/1.jpg", *SIZE, False, objects, b"\xff\xd8\xff")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> dict[str, Any]:
    monkeypatch.setattr(exporting, "SOURCES", {"pseudo-labels": lambda run, limits: Odd()})
    run = cast("Any", SimpleNamespace(name="odd", source="odd"))
    wanted = Wanted(request.param, "pseudo-labels", str(tmp_path / "o"), Limits(), min_iou=1)
    return export(run, wanted)


@pytest.mark.parametrize("told", ["coco", "cvat", "fiftyone"], indirect=True)
def test_coco_files_have_boxes_and_areas_to_ignore(told: dict[str, Any], tmp_path: Path):
    path = tmp_path / "o" / ("labels.json" if told["format"] == "fiftyone" else COCO_FILE)
    coco = COCO(str(path))
    found = coco.loadAnns(coco.getAnnIds())
    assert [each["iscrowd"] for each in found] == [0, 1, 0]
    assert found[0]["segmentation"] == []
    assert found[0]["bbox"] == [3, 2, 9.5, 7]
    assert found[0]["area"] == 66.5
    assert coco.annToMask(found[1]).sum() == coco.annToMask(found[2]).sum() == found[2]["area"]
    assert {each["image_id"] for each in found} == {1}  # 0 is nobody's
    assert told["left_out"] == {"masks without a pixel": 1}
    assert told["drawn_as_boxes"] == 0
    if told["format"] == "cvat":
        labels = json.loads((tmp_path / "o" / "labels.json").read_text())
        assert [label["name"] for label in labels] == ["cat", "novel 1"]


@pytest.mark.parametrize("told", ["yolo", "label-studio"], indirect=True)
def test_formats_of_polygons_draw_boxes_and_join_parts(told: dict[str, Any], tmp_path: Path):
    assert told["left_out"] == {"masks without a pixel": 1, "areas to ignore": 1}
    assert told["drawn_as_boxes"] == 1
    assert told["objects"] == 2
    if told["format"] == "yolo":
        box, joined = (tmp_path / "o" / "labels" / "1.txt").read_text().splitlines()
        assert box.split() == [
            "0", "0.100000", "0.100000", "0.416667", "0.100000",
            "0.416667", "0.450000", "0.100000", "0.450000",
        ]  # fmt: skip
        assert len(joined.split()) == 1 + 2 * 10
        return
    (task,) = json.loads((tmp_path / "o" / "tasks.json").read_text())
    box, joined = task["predictions"][0]["result"]
    assert box["value"]["points"][2] == [41.6667, 45]
    assert len(joined["value"]["points"]) == 10
    assert task["predictions"][0]["score"] == joined["score"] == 0.75
    assert "score" not in box
