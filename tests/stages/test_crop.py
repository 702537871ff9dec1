"""Crops: which objects, in what order, showing what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.data.crops.crop_cutting import cut_crops, cut_image
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.stages import crop
from gcdis_ray.store.schemas import CROPS, IMAGE_INDEX
from gcdis_ray.store.storage import LocalStorage

HEIGHT, WIDTH = 60, 80
SPLITS = ("labeled", "labeled", "unlabeled", "unlabeled", "validation")


def picture(seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def mask_of(x0: int, y0: int, x1: int, y1: int) -> str:
    return coco_rle.encode_window(np.ones((y1 - y0, x1 - x0)), x0, y0, HEIGHT, WIDTH)


def rectangle(x0: int, y0: int, x1: int, y1: int, image_id: int, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "bbox_xyxy": [x0, y0, x1, y1],
        "mask_rle": mask_of(x0, y0, x1, y1),
        "height_px": HEIGHT,
        "width_px": WIDTH,
        "area_px": float((x1 - x0) * (y1 - y0)),
        **more,
    }


def instance(number: int, box: tuple[int, int, int, int], image_id: int, **more: Any) -> dict:
    row = rectangle(*box, image_id, instance_id=number, category_id=5, class_index=1, iscrowd=False)
    return {**row, **more}


def proposal(number: int, box: tuple[int, int, int, int], image_id: int, score: float) -> dict:
    return rectangle(*box, image_id, proposal_id=number, objectness=score, origin="model")


class Inputs:
    """Two artifacts in one: shard i has image i + 1 only. Files are in the table or a folder."""

    def __init__(
        self,
        work: StageWork,
        instances: list[dict],
        proposals: list[dict],
        folder: Path | None = None,
        made: list[dict] | None = None,
    ) -> None:
        files = [cv2.imencode(".png", picture(i)[..., ::-1])[1].tobytes() for i in range(1, 6)]
        rows = [
            {
                "image_id": i,
                "uri": f"{i}.png",
                "bytes": None if folder else file,
                "turn": 1,
                "height_px": HEIGHT,
                "width_px": WIDTH,
                "sha256": hashlib.sha256(file).hexdigest(),
                "split": split,
            }
            for i, (split, file) in enumerate(zip(SPLITS, files, strict=True), 1)
        ]
        if folder:
            for row, file in zip(rows, files, strict=True):
                (folder / str(row["uri"])).write_bytes(file)
            work.write_json("source", {"uri": str(folder)})
        index = [{name: row[name] for name in IMAGE_INDEX.names} for row in rows]
        members = {
            "images": rows,
            "image_index": index,
            "instances": instances,
            "proposals": proposals,
        }
        if made is not None:
            members["instance_masks"] = made

        class Write:
            def open(self, device: str):
                def write(index: int) -> dict[str, pa.Table]:
                    return {
                        name: pa.Table.from_pylist(
                            [row for row in table if row["image_id"] == index + 1], SCHEMAS[name]
                        )
                        for name, table in members.items()
                    }

                return write

        work.map_shards(Write(), [], gives=tuple(members), args=[{} for _ in SPLITS])
        self._work = work

    def has(self, name: str) -> bool:
        return name in self._work.files

    def json(self, name: str) -> Any:
        return json.loads(self._work.opener.read_bytes(self._work.files[name][0]))

    def table(self, name: str):
        return self._work.table(name)


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., StageWork]:
    compute = ComputeConfig(runtime="local", workers=1, threads=1)
    numbers = iter(range(100))

    def run(
        instances: list[dict],
        proposals: list[dict],
        folder: Path | None = None,
        made: list[dict] | None = None,
        **config: Any,
    ) -> StageWork:
        def new() -> StageWork:
            storage = LocalStorage(str(tmp_path / f"out{next(numbers)}"))
            attempt = Attempt(storage, "crop/k", "attempt-0", SCHEMAS)
            return StageWork(attempt, lambda: LocalRuntime(compute), compute, 0, lambda _: None)

        both: Any = Inputs(new(), instances, proposals, folder, made)
        work = new()
        crop.run(inputs_of(crop, {"ingest": both, "propose": both}), crop.Config(**config), work)
        return work

    return run


BOX = (10, 20, 30, 50)


def rows_of(work: StageWork) -> list[dict[str, Any]]:
    return work.table("crops").read().to_pylist()


def decoded(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    image = cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR_RGB)
    mask = cv2.imdecode(np.frombuffer(row["mask_png"], np.uint8), cv2.IMREAD_UNCHANGED)
    return image, mask


def test_who_becomes_a_crop(cut):
    work = cut(
        [
            instance(9, BOX, 1),
            instance(4, (0, 0, 20, 20), 1, class_index=0),
            instance(5, BOX, 2, iscrowd=True),
            instance(6, BOX, 2, mask_rle=None),
            instance(7, (0, 0, 5, 30), 2),  # too narrow
            instance(8, BOX, 2, area_px=3.0),  # too few pixels
        ],
        [
            proposal(1, BOX, 1, 1.0),  # labeled image
            proposal(2, BOX, 3, 0.5),
            proposal(3, BOX, 3, 0.9),
            proposal(5, (0, 0, 20, 20), 3, 0.9),
            proposal(6, BOX, 4, 0.05),  # below min_objectness
            proposal(7, BOX, 4, 0.7),
            proposal(8, BOX, 5, 1.0),  # validation image
        ],
        max_proposals_per_image=2,
        min_objectness=0.1,
    )
    rows = rows_of(work)
    assert [(r["image_id"], r["source_id"], r["class_index"]) for r in rows] == [
        (1, 4, 0), (1, 9, 1), (3, 3, -1), (3, 5, -1), (4, 7, -1)
    ]  # fmt: skip
    assert [r["crop_index"] for r in rows] == list(range(5))
    table = work.table("crops")
    assert table.read().schema.equals(CROPS)
    assert [table.shard(i).num_rows for i in range(5)] == [2, 0, 2, 1, 0]


def test_boxes_with_made_masks_become_crops(cut):
    boxes = [
        instance(3, (0, 0, 40, 40), 1),
        instance(6, BOX, 1, mask_rle=None, area_px=600.0),
        instance(7, BOX, 1, mask_rle=None),  # nothing could be made
        instance(8, BOX, 2, mask_rle=None, area_px=600.0),  # too few pixels of its box
    ]
    made = [
        {
            "instance_id": number,
            "image_id": image_id,
            "mask_rle": mask_of(*box),
            "area_px": float((box[2] - box[0]) * (box[3] - box[1])),
            "origin": "model",
        }
        for number, image_id, box in ((6, 1, (12, 24, 28, 48)), (8, 2, (12, 24, 16, 28)))
    ]
    work = cut(boxes, [], made=made)
    rows = rows_of(work)
    assert [row["source_id"] for row in rows] == [3, 6]
    assert rows[1]["bbox_xyxy"] == [12, 24, 28, 48]
    assert decoded(rows[1])[1].any()
    without = cut(boxes, [])
    assert [row["source_id"] for row in rows_of(without)] == [3]
    annotated = cut(boxes[:1], [], made=[])
    assert [f.sha256 for f in annotated.files["crops"]] == [
        f.sha256 for f in without.files["crops"]
    ]


def test_what_a_crop_shows(cut):
    row = rows_of(cut([instance(1, BOX, 1)], [], context=0.1, jpeg_quality=100))[0]
    assert row["window_xyxy"] == [7, 17, 33, 53]  # 3 px: a tenth of the longer side
    assert row["bbox_xyxy"] == list(BOX)
    image, mask = decoded(row)
    assert np.abs(image.astype(int) - picture(1)[17:53, 7:33]).mean() < 3
    want = np.zeros((HEIGHT, WIDTH), np.uint8)
    want[20:50, 10:30] = 255
    assert np.array_equal(mask, want[17:53, 7:33])


def test_large_crops_are_scaled_down(cut):
    row = rows_of(cut([instance(1, (0, 10, 80, 40), 1)], [], context=0, max_side_px=20))[0]
    image, mask = decoded(row)
    assert image.shape == (8, 20, 3)
    assert mask.shape == (8, 20)
    assert set(np.unique(mask)) == {255}
    assert row["window_xyxy"] == [0, 10, 80, 40]


@given(st.integers(2, 60), st.integers(2, 80), st.integers(8, 79), st.integers(0, 1 << 30))
@examples(60)
def test_shrinking_is_the_area_average_of_colours_and_mask(
    height: int, width: int, side: int, seed: int
):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    full = rng.random((height, width)) < 0.5
    full[0, 0] = full[-1, -1] = True  # the box is the image
    config = crop.Config(max_side_px=side, context=0)
    row = cut_image(pixels, [coco_rle.encode(full)], config.cut)[0]
    shrink = min(1, side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    want = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", want[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    assert row["jpeg"] == jpeg.tobytes()
    cover = cv2.resize(full.view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA)
    assert np.array_equal(decoded(row)[1] > 0, cover >= (128 if (cover >= 128).any() else 1))


def test_hair_thin_mask_survives_scaling(cut):
    bitmap = np.eye(60, 80, dtype=bool)
    thin = instance(1, (0, 0, 60, 60), 1, mask_rle=coco_rle.encode(bitmap), area_px=60.0)
    _, mask = decoded(rows_of(cut([thin], [], context=0, max_side_px=8))[0])
    assert mask.any()


def test_colours_are_not_swapped(cut):
    image, _ = decoded(rows_of(cut([instance(1, (0, 0, 80, 60), 1)], [], context=0))[0])
    want = picture(1).astype(int)
    assert np.abs(image - want).mean() < 6 < np.abs(image[..., ::-1] - want).mean()


def test_same_bytes_every_time(cut):
    objects = [instance(i, (i, i, i + 30, i + 30), 1 + i % 2) for i in range(6)]
    found = [proposal(i, (i, 2 * i, i + 20, 2 * i + 15), 3, 0.5) for i in range(6)]
    first, again = cut(objects, found), cut(objects, found)
    shuffled = cut(objects[::-1], found[::-1])
    hashes = [[r.sha256 for r in work.files["crops"]] for work in (first, again, shuffled)]
    assert hashes[0] == hashes[1] == hashes[2]


def test_nothing_to_cut(cut):
    with pytest.raises(DataError, match="no object is large enough"):
        cut([instance(1, BOX, 1)], [], min_side_px=50)


def test_images_cut_together_or_alone_give_the_same_bytes(cut, monkeypatch: pytest.MonkeyPatch):
    boxes = [(i, 2 * i, i + 24, 2 * i + 18) for i in range(12)]
    pictures = [picture(seed) for seed in range(4)]
    rles = [[mask_of(*box) for box in boxes[i : i + 4]] for i in (0, 3, 5, 8)]
    sizes, config = np.array([(HEIGHT, WIDTH)] * 4), crop.Config(max_side_px=16)
    ahead = iter(pictures)
    together = cut_crops(ahead, sizes[:3], rles[:3], config.cut)
    assert next(ahead) is pictures[3]
    alone = [cut_image(*each, config.cut) for each in zip(pictures[:3], rles, strict=False)]
    assert together == [one for each in alone for one in each]
    objects = [instance(i, box, 1 + i % 2) for i, box in enumerate(boxes)]
    many = cut(objects, [])
    monkeypatch.setattr(crop, "_PIXELS_AT_A_TIME", 1)
    assert cut(objects, []).files["crops"] == many.files["crops"]


@pytest.mark.parametrize("name", sorted(crop.Config.model_fields))
def test_bounds(name: str):
    field = crop.Config.model_json_schema()["properties"][name]
    for bound, outside in (("minimum", -1), ("maximum", 1)):
        crop.Config(**{name: field[bound]})
        with pytest.raises(ValidationError):
            crop.Config(**{name: field[bound] + outside})


def test_real_photographs(shared_data: Path):
    """Mask and window of real objects agree with the full bitmap."""
    from gcdis_ray.data.formats.coco import parse_annotation
    from gcdis_ray.data.formats.open_file import open_annotations
    from gcdis_ray.data.images.image_check import decode_rgb
    from gcdis_ray.data.sets.data_config import ImageSet
    from gcdis_ray.store.source import open_source

    folder = shared_data / "voc2007-seg"
    source = open_annotations(
        open_source(str(folder)), ImageSet(images="images", annotations="instances.json")
    )
    images = list(source.images())[:8]
    config = crop.Config(max_side_px=4096, context=0.2)
    for image in images:
        pixels = decode_rgb((folder / "images" / image.file_name).read_bytes())
        for raw in source.annotations():
            if raw["image_id"] != image.image_id:
                continue
            annotation = parse_annotation(raw, image.height_px, image.width_px)
            assert annotation.mask_rle
            row = cut_image(pixels, [annotation.mask_rle], config.cut)[0]
            x0, y0, x1, y1 = row["window_xyxy"]
            full = coco_rle.decode(annotation.mask_rle, *pixels.shape[:2])
            _, mask = decoded(row)
            assert np.array_equal(mask > 0, full[y0:y1, x0:x1])
            assert mask.astype(bool).sum() == full.sum()


def test_images_that_stayed_where_they_were(cut, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    objects = [instance(1, BOX, 1)], [proposal(2, BOX, 3, 0.9)]
    stored, left = cut(*objects), cut(*objects, folder)
    assert stored.files["crops"] == left.files["crops"]  # the same bytes
    assert left.table("crops").num_rows == 2
