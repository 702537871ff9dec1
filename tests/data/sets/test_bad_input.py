"""Annotation files that are broken or hostile: a named error or a counted rejection, each."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import official_files as official
import pytest
from coco_folder import folder_config, make_coco_folder, write_json

from gcdis_ray.data.formats.coco import parse_annotation
from gcdis_ray.data.formats.open_file import open_file
from gcdis_ray.data.sets.data_config import JsonList
from gcdis_ray.data.sets.json_lists import read_ids, read_names
from gcdis_ray.data.sets.present import Listing
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.stages.ingest import Config
from gcdis_ray.store.source import open_source


def opened(root: Path, name: str, **options):
    return open_file(open_source(str(root)), name, **options)


# ---------------------------------------------------------------- JSON that is no good


@pytest.mark.parametrize("make", [official.coco, official.lvis])
def test_files_cut_off(tmp_path: Path, make):
    make(tmp_path / "whole.json", list(range(1, 30)))
    text = (tmp_path / "whole.json").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "cut.json").write_bytes(text[: int(len(text) * share)])
        with pytest.raises(
            DataError, match=r"cut\.json: (\w+\[\d+\]: )?the file ends in the middle"
        ):
            opened(tmp_path, "cut.json")


def test_cut_off_visual_genome(tmp_path: Path):
    official.visual_genome(tmp_path, {i: i for i in range(1, 20)})
    for name in ("objects.json", "image_data.json"):
        text = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(text[: len(text) * 9 // 10])
        with pytest.raises(DataError, match=rf"{name}: \[\d+\]: the file ends in the middle"):
            opened(tmp_path, "objects.json", format="visual_genome")
        (tmp_path / name).write_bytes(text)
    (tmp_path / "image_data.json").unlink()
    with pytest.raises(DataError, match=r"image_data\.json: no such file"):
        opened(tmp_path, "objects.json")


def test_files_without_an_image(tmp_path: Path):
    for text, reason in [("", "the file is empty"), ("[]", "an empty list: no image in it")]:
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=rf"a\.json: {reason}"):
            opened(tmp_path, "a.json")


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("make", [official.coco, official.lvis])
def test_images_listed_twice(tmp_path: Path, make):
    data = make(tmp_path / "a.json", [1, 2, 3])
    data["images"].append(data["images"][1])
    write_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=r"images\[3\]: image id 2 occurs twice"):
        list(opened(tmp_path, "a.json").images())


def test_images_listed_twice_in_others(tmp_path: Path):
    official.visual_genome(tmp_path, {1: 5, 2: 5})
    list(opened(tmp_path, "objects.json").images())
    with pytest.raises(DataError, match="image id 5 occurs twice"):
        list(opened(tmp_path, "objects.json", as_in_coco=True).images())
    official.voc(tmp_path / "VOC", ["000001", "000002"])
    (tmp_path / "VOC/ImageSets/Segmentation/train.txt").write_text("000001\n000002\n000001\n")
    with pytest.raises(DataError, match=r"train.txt\[2\]: image id 1 occurs twice"):
        opened(tmp_path, "VOC/ImageSets/Segmentation/train.txt")


def test_two_images_with_one_name(tmp_path: Path):
    data = make_coco_folder(tmp_path, 6)
    data["images"][1]["file_name"] = data["images"][0]["file_name"]
    write_json(tmp_path / "all.json", data)
    with pytest.raises(DataError, match=r"1 image occurs twice, .* images/1\.jpg\n.*lists that"):
        plan_data(Config(**folder_config(tmp_path)))


@pytest.mark.parametrize("format", ["auto", "lvis", "coco"])
@pytest.mark.parametrize("name", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_lists_of_lvis_in_some_images_only(tmp_path: Path, name: str, format: Any):
    data = official.lvis(tmp_path / "a.json", [1, 2, 3])
    for image in data["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    del data["images"][2][name]
    write_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=r"images\[2\]: image 3 lacks neg_.* neither COCO's rules"):
        list(opened(tmp_path, "a.json", format=format).images())
    data["images"].reverse()
    write_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=r"images\[1\]: image 2 has neg_.* neither COCO's rules"):
        list(opened(tmp_path, "a.json", format=format).images())
    for image in data["images"]:
        image.pop(name, None)
    write_json(tmp_path / "a.json", data)
    assert len(list(opened(tmp_path, "a.json", format=format).images())) == 3


@pytest.mark.parametrize("name", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_lists_of_lvis_that_name_no_category(tmp_path: Path, name: str):
    data = official.lvis(tmp_path / "a.json", [1, 2])
    data["images"][1][name] = [2, 99]
    write_json(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=rf"images\[1\]: {name} holds 99, which is no category"):
        list(opened(tmp_path, "a.json").images())
    del data["categories"]
    write_json(tmp_path / "a.json", data)
    assert len(list(opened(tmp_path, "a.json", format="lvis").images())) == 2


@pytest.mark.parametrize(
    ("make", "change", "reason"),
    [
        (official.coco, {"file_name": "../../secret.jpg"}, "leaves the image folder"),
        (official.coco, {"file_name": "a/../b.jpg"}, ".. is not allowed"),
        (official.coco, {"file_name": "A:b.jpg"}, "drive or scheme are refused"),
        (official.coco, {"file_name": "s3://bucket/b.jpg"}, "drive or scheme are refused"),
        (official.coco, {"file_name": "a/b:c\n.jpg"}, "control character"),
        (official.coco, {"file_name": "./"}, "is the image folder itself"),
        (official.coco, {"file_name": "n" * 2000}, "is longer than 1024 characters"),
        (official.lvis, {"coco_url": "http://x/val2017/../../secret.jpg"}, "leaves the image"),
        (official.lvis, {"coco_url": "http://x/../secret.jpg"}, "leaves the image folder"),
        (official.lvis, {"file_name": "/etc/passwd"}, "leaves the image folder"),
        (official.lvis, {"coco_url": "http://x/val2017/..\\secret.jpg"}, "has a backslash"),
        (official.objects365, {"file_name": "images/v1/patch8/../../../secret.jpg"}, "leaves"),
        (official.objects365, {"file_name": "images/v1/patch8//../../../etc/passwd"}, "leaves"),
    ],
)  # fmt: skip
def test_names_that_are_refused(tmp_path: Path, make, change: dict, reason: str):
    names: list[Any] = ["v1/patch8/a.jpg"] if make is official.objects365 else [1]
    data = make(tmp_path / "a.json", names)
    data["images"][0].update(change)
    write_json(tmp_path / "a.json", data)
    file = opened(tmp_path, "a.json", format=make.__name__)
    with pytest.raises(DataError, match=rf"images\[0\]: file_name .*{reason}") as caught:
        list(file.images())
    assert len(caught.value.what) < 160


def test_addresses_that_climb_out(tmp_path: Path):
    official.visual_genome(tmp_path, {1: None})
    for url in ("http://x/VG_100K/../1.jpg", "http://x/..", 5, "", "http://x/VG\x00/1.jpg"):
        data = json.loads((tmp_path / "image_data.json").read_text())
        data[0]["url"] = url
        write_json(tmp_path / "image_data.json", data)
        with pytest.raises(DataError, match=r"leaves the|\.\. is not|control|no '(url|file_name)'"):
            list(opened(tmp_path, "objects.json").images())
    official.voc(tmp_path / "VOC", ["000001"])
    for line in ("../../../etc/passwd", "/etc/passwd", "2007_000032/../x", "x" * 5000):
        (tmp_path / "VOC/ImageSets/Segmentation/train.txt").write_text(f"{line}\n")
        with pytest.raises(DataError, match="is no image name"):
            opened(tmp_path, "VOC/ImageSets/Segmentation/train.txt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [float("nan"), 5, 6, 6]}, "not four finite numbers"),
        ({"bbox": [3, 5, -6, 6]}, "has a negative width or height"),
        ({"bbox": [3, 5, 0, 6]}, "has no extent"),
        ({"bbox": [-30, 5, 6, 6]}, "outside the image"),
        ({"bbox": [3, 5, 6, 60]}, "outside the image"),
        ({"bbox": [3, 5, None, None]}, "not four finite numbers"),
        ({"segmentation": {"size": [30, 40], "counts": [0, 1201]}}, "mask outside the image"),
        ({"segmentation": {"size": [300, 400], "counts": [0, 120_000]}}, "mask"),
        ({"segmentation": {"size": [30, 40], "counts": "0PPPPPPPPPP1"}}, "mask"),
        ({"category_id": None}, "no 'category_id'"),
        ({"id": None}, "no 'id'"),
        ({"id": "x" * 1000}, r"id 'x+\.\.\.x+' is a text, not a whole number"),
        ({"id": 10**300}, r"id 10+\.\.\.0+ is a whole number beyond 64 bits"),
        ({"category_id": 10**300}, r"category_id 10+\.\.\.0+ is a whole number beyond"),
        ({"bbox": [1] * 400}, "is not four finite numbers"),
        ({"bbox": [10**300, 5, 6, 6]}, "is not within"),
        ({"area": -(10**300)}, r"area -10+\.\.\.0+ is negative"),
        ({"iscrowd": "x" * 1000}, "is a text, not 0 or 1"),
        ({"segmentation": {"size": [10**300, 40], "counts": "0"}}, "size 10+.* beyond 64 bits"),
    ],
)  # fmt: skip
def test_annotations_refused_one_by_one(tmp_path: Path, change: dict, reason: str):
    data = official.lvis(tmp_path / "a.json", [1])
    with pytest.raises(DataError, match=reason) as caught:
        parse_annotation({**data["annotations"][0], **change}, 30, 40)
    assert len(caught.value.what) < 160


def test_odd_objects_of_visual_genome_are_refused_one_by_one(tmp_path: Path):
    official.visual_genome(tmp_path, {1: None})
    data = json.loads((tmp_path / "objects.json").read_text())
    data[0]["objects"] = [
        {"object_id": 1, "synsets": ["a.n.01"], "x": -50, "y": 0, "w": 10, "h": 10},
        {"object_id": 2, "synsets": ["a.n.01"], "x": 5, "y": 5, "w": 10},
        {"object_id": None, "synsets": ["a.n.01"], "x": 5, "y": 5, "w": 5, "h": 5},
        {"object_id": 4, "synsets": "a.n.01", "x": 5, "y": 5, "w": 5, "h": 5},
        {"object_id": 5, "synsets": [7], "x": 5, "y": 5, "w": 5, "h": 5},
    ]
    write_json(tmp_path / "objects.json", data)
    found = list(opened(tmp_path, "objects.json").annotations())
    assert [raw["id"] for raw in found] == [1, 2, None]
    for raw in found:
        with pytest.raises(DataError, match=r"outside the image|four finite numbers|no 'id'"):
            parse_annotation(raw, 60, 80)
    write_json(tmp_path / "objects.json", [{"image_id": 1, "objects": [5]}])
    with pytest.raises(DataError, match=r"\[0\]: no list of 'objects'"):
        list(opened(tmp_path, "objects.json").annotations())


def test_bad_masks_of_voc(tmp_path: Path):
    from PIL import Image

    official.voc(tmp_path / "VOC", ["000001"])
    listed = "VOC/ImageSets/Segmentation/train.txt"
    path = tmp_path / "VOC/SegmentationClass/000001.png"
    good = path.read_bytes()
    for data, reason in [(good[:80], "damaged PNG"), (b"GIF89a" + good, "not a PNG file")]:
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"000001\.png: {reason}"):
            list(opened(tmp_path, listed).annotations())
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(DataError, match="mode RGB, not palette"):
        list(opened(tmp_path, listed).annotations())
    Image.new("P", (30, 40)).save(path)
    with pytest.raises(DataError, match="differ in size"):
        list(opened(tmp_path, listed).annotations())
    path.unlink()
    with pytest.raises(DataError, match=r"000001\.png: no such file"):
        list(opened(tmp_path, listed).annotations())
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100_000).to_bytes(4, "big") * 2
    (tmp_path / "VOC/SegmentationObject/000001.png").write_bytes(header)
    with pytest.raises(DataError, match="100000 x 100000 pixels"):
        list(opened(tmp_path, listed).images())


def test_voc_masks_with_large_metadata(tmp_path: Path):
    official.voc(tmp_path / "VOC", ["000001"])
    listed = "VOC/ImageSets/Segmentation/train.txt"
    plain = list(opened(tmp_path, listed).annotations())
    mask = tmp_path / "VOC/SegmentationObject/000001.png"
    text = b"zTXtComment\0\0" + zlib.compress(b" " * 3_000_000)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    data = mask.read_bytes()
    mask.write_bytes(data[:33] + 3 * chunk + data[33:])
    assert list(opened(tmp_path, listed).annotations()) == plain


# ---------------------------------------------------------------- lists and files


def test_lists_in_files(tmp_path: Path):
    make_coco_folder(tmp_path, 4)
    write_json(
        tmp_path / "l.json", {"a": {"b": [3, 1, 3]}, "n": ["cat", 5], "x": 1, "big": [2**60]}
    )
    folder = open_source(str(tmp_path))

    def ids(file: str, key: str) -> list[int]:
        return read_ids(folder, JsonList(file=file, key=key), "here").tolist()

    assert ids("all.json", "images.id") == [1, 2, 3, 4]
    assert ids("l.json", "a.b") == [1, 3]
    assert ids("l.json", "big") == [2**60]
    assert read_names(folder, JsonList(file="l.json", key="n"), "here") == ["cat", 5]
    assert isinstance(read_ids(folder, JsonList(file="l.json", key="a.b"), "here"), np.ndarray)
    for file, key, reason in [
        ("l.json", "n", "is no list of ids"),
        ("l.json", "x", "no list of names|no 'x'"),
        ("l.json", "a.c", "no 'a.c' in"),
        ("l.json", "a", "no list|no 'a'"),
        ("all.json", "images", "no list of names or ids"),
        ("all.json", "images.caption", "'caption' is in 0 of the 4 objects of 'images'"),
        ("all.json", "images.file_name", "is no list of ids"),
        ("none.json", "a", "none.json: no such file"),
    ]:
        with pytest.raises(DataError, match=reason):
            ids(file, key)


def test_missing_images_are_named(tmp_path: Path):
    for name in ("patch1/a.jpg", "patch1/b.jpg", "patch4/a.jpg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    listing = Listing(open_source(str(tmp_path)), "train")
    there = ["patch1/a.jpg", "patch1/b.jpg", "patch4/a.jpg"]
    assert listing.missing(there).count == 0
    gone = [f"patch{p}/{n}.jpg" for p in (12, 3) for n in range(500)]
    found = listing.missing([*there, *gone, "patch4/z.jpg"])
    assert (found.count, found.in_folders, found.files) == (1001, 1000, 1)
    assert found.folders == ("patch12", "patch3")
    text = str(found.error("stages.ingest.unlabeled"))
    assert (
        "of 1,004 images are missing: patches 3, 12 (1,000 images); 1 file such as patch4/z" in text
    )
    assert "partial: true" in text
    alone = listing.missing(["val2017/1.jpg"]).describe()
    assert alone == "1 of 1 image is missing: folder val2017 (1 image)"
    assert len(listing.missing(["a" * 1000 + "/" + "b" * 1000]).describe()) < 160
