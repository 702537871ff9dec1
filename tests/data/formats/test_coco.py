"""The COCO reader on good files, broken files and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from coco_folder import HEIGHT, WIDTH, make_coco_folder, square, write_json
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.data.formats.coco import CocoFile, parse_annotation, safe_file_name
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.source import open_source

GOOD = {
    "id": 5,
    "image_id": 1,
    "category_id": 2,
    "bbox": [3, 4, 10, 10],
    "area": 90.5,
    "iscrowd": 0,
    "segmentation": square(3, 4, 10),
}


def coco_file(folder: Path, name: str) -> CocoFile:
    return CocoFile(open_source(str(folder)), name)


def test_reads_all_records(tmp_path: Path):
    data = make_coco_folder(tmp_path)
    file = coco_file(tmp_path, "all.json")
    assert [(r.image_id, r.file_name) for r in file.images()] == [
        (i, f"{i}.jpg") for i in range(1, 13)
    ]
    assert {(r.height_px, r.width_px) for r in file.images()} == {(HEIGHT, WIDTH)}
    assert [c.category_id for c in file.categories] == [1, 2, 7, 9]
    assert list(file.annotations()) == data["annotations"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file is empty"),
        ('{"images": [{"id": 1, "file_na', "truncated JSON"),
        ('{"images": [], "annotations": [], "categories": []', "truncated JSON"),
        ("I am no JSON", "not valid JSON"),
        ('{"images": [{"id": NaN}]}', "NaN and Infinity"),
        ('{"images": [{"id": 1e999}]}', "not valid JSON"),
        ('{"images": [1]}', "must be an object"),
        ('{"images": [], "images": []}', "more than one 'images'"),
        ('[{"image_id": 1}]', "no 'images' in it"),
        ('{"annotations": []}', "no 'images' in it"),
        ('{"images": ' + "[" * 100_000, "nested more than"),
        ('{"images": [{"x": ' + "[" * 50 + "]" * 50 + "}]}", "nested more than"),
        ('{"images": [{"file_name": "a.jpg", "height": 3, "width": 3}]}', r"images\[0\]: no 'id'"),
        ('{"images": [{"id": 1, "height": 3, "width": 3}]}', r"images\[0\]: no 'file_name'"),
        ('{"images": [{"id": 1, "file_name": "a.jpg", "width": 3}]}', "no 'height'"),
        ('{"images": [{"id": "1", "file_name": "a", "height": 3, "width": 3}]}', "whole number"),
        ('{"images": [{"id": -1, "file_name": "a", "height": 3, "width": 3}]}', "whole number"),
        ('{"images": [{"id": true, "file_name": "a", "height": 3, "width": 3}]}', "whole number"),
        ('{"images": [{"id": 1, "file_name": "a", "height": 0, "width": 3}]}', "0 x 3 pixels"),
        ('{"images": [{"id": 1, "file_name": "a", "height": 9e6, "width": 3}]}', "pixels"),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 3, "width": 3},'
            '{"id": 1, "file_name": "b", "height": 3, "width": 3}]}',
            r"images\[1\]: image id 1 occurs twice",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        list(coco_file(path.parent, path.name).images())
    assert "bad.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_missing_files_and_sections(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        coco_file(tmp_path, "none.json")
    with pytest.raises(DataError, match="directory"):
        coco_file(tmp_path.parent, tmp_path.name)
    write_json(tmp_path / "bare.json", {"images": []})
    with pytest.raises(DataError, match="no 'categories' in it"):
        _ = coco_file(tmp_path, "bare.json").categories
    with pytest.raises(DataError, match="no 'annotations' in it"):
        list(coco_file(tmp_path, "bare.json").annotations())
    write_json(tmp_path / "c.json", {"images": [], "categories": [{"id": 1, "name": "a"}] * 2})
    with pytest.raises(DataError, match="category id 1 occurs twice"):
        _ = coco_file(tmp_path, "c.json").categories


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "..", "a/..", "..\\secret.jpg",
        "C:\\secret.jpg", "C:/secret.jpg", "s3://bucket/key", "file:///etc/passwd", "a\0b.jpg",
        "a\nb.jpg", "", None, 7, ["a.jpg"], "x" * 2000, "./../x.jpg", "a\\..\\..\\b.jpg",
    ],
)  # fmt: skip
def test_paths_cannot_leave_the_folder(name):
    with pytest.raises(DataError):
        safe_file_name(name, "here")


@pytest.mark.parametrize(
    "name", ["a.jpg", "train/a.jpg", "a..b.jpg", "...jpg", "ü x.jpg", "a:b.jpg"]
)
def test_ordinary_names_pass(name: str):
    if ":" in name:
        with pytest.raises(DataError):  # may be a drive or a scheme
            safe_file_name(name, "here")
    else:
        assert safe_file_name(name, "here") == name


def test_annotation():
    a = parse_annotation(GOOD, HEIGHT, WIDTH)
    assert (a.instance_id, a.category_id, a.iscrowd, a.area_px) == (5, 2, False, 90.5)
    assert a.bbox_xyxy == (3, 4, 13, 14)
    assert coco_rle.area(a.mask_rle or "", HEIGHT, WIDTH) == 100
    boxless = parse_annotation({**GOOD, "bbox": None, "area": None}, HEIGHT, WIDTH)
    assert boxless.bbox_xyxy == (3, 4, 13, 14)
    assert boxless.area_px == 100
    maskless = parse_annotation({**GOOD, "segmentation": [], "area": None}, HEIGHT, WIDTH)
    assert maskless.mask_rle is None
    assert maskless.area_px == 100
    clipped = parse_annotation({**GOOD, "bbox": [-0.5, 0, 41, 30]}, HEIGHT, WIDTH)
    assert clipped.bbox_xyxy == (0, 0, 40, 30)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "no 'id'"),
        ({"id": "five"}, "whole number"),
        ({"category_id": None}, "no 'category_id'"),
        ({"bbox": [1, 2, float("nan"), 4]}, "finite"),
        ({"bbox": [1, 2, 3]}, "four finite numbers"),
        ({"bbox": "1234"}, "four finite numbers"),
        ({"bbox": [5, 5, -3, 4]}, "negative width or height"),
        ({"bbox": [5, 5, 0, 4]}, "no extent"),
        ({"bbox": [-10, 5, 15, 4]}, "outside the image"),
        ({"bbox": [30, 5, 15, 4]}, "outside the image"),
        ({"bbox": [41, 5, 1, 4]}, "outside the image"),
        ({"segmentation": square(3, 4, 0), "bbox": None}, "zero-area mask"),
        ({"segmentation": [[]], "bbox": None}, "no polygon with three or more points"),
        ({"segmentation": square(35, 4, 10)}, "outside the image"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [1200]}}, "outside the image"),
        ({"segmentation": None, "bbox": None}, "neither mask nor box"),
        ({"area": -1}, "area"),
        ({"area": "big"}, "area"),
        ({"iscrowd": 2}, "iscrowd"),
        ({"iscrowd": [1]}, "iscrowd"),
    ],
)
def test_bad_annotations_are_named(change: dict, reason: str):
    with pytest.raises(DataError, match=reason):
        parse_annotation({**GOOD, **change}, HEIGHT, WIDTH)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
@examples(400)
def test_any_value_is_read_or_refused(field: str, value):
    try:
        a = parse_annotation({**GOOD, field: value}, HEIGHT, WIDTH)
    except DataError:
        return
    x0, y0, x1, y1 = a.bbox_xyxy
    assert 0 <= x0 < x1 <= WIDTH
    assert 0 <= y0 < y1 <= HEIGHT


@given(st.binary(max_size=80) | JSON.map(lambda v: json.dumps({"images": v}).encode()))
@examples(300)
def test_any_file_is_read_or_refused(tmp_path_factory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    problem = ""
    try:
        list(coco_file(path.parent, path.name).images())
    except DataError as error:
        problem = str(error)
    assert not problem or "fuzz.json" in problem
