"""Every format through the one door: what is read, derived, passed over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import official_files as official
import pytest
from coco_folder import write_json

from gcdis_ray.data.formats.coco import CocoFile, parse_annotation
from gcdis_ray.data.formats.labels import Labels
from gcdis_ray.data.formats.lvis import LvisFile
from gcdis_ray.data.formats.open_file import open_annotations, open_file, open_labels
from gcdis_ray.data.formats.records import AnnotationSource, CategoryRecord, ImageRecord
from gcdis_ray.data.sets.annotations import Selection
from gcdis_ray.data.sets.data_config import ImageSet, LabelSpace, SynsetFile
from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.source import open_source


def opened(root: Path, name: str, **options) -> AnnotationSource:
    return open_file(open_source(str(root)), name, **options)


def chosen(root: Path, annotations, labels: Labels | None = None, **fields) -> AnnotationSource:
    image_set = ImageSet(images=".", annotations=annotations, **fields)
    return open_annotations(open_source(str(root)), image_set, labels)


# ---------------------------------------------------------------- LVIS


def test_lvis_v1(tmp_path: Path):
    data = official.lvis(tmp_path / "lvis.json", [391895, 9], "val2017")
    file = opened(tmp_path, "lvis.json")
    assert isinstance(file, LvisFile)
    assert list(file.images()) == [
        ImageRecord(i, f"val2017/{i:012d}.jpg", 30, 40, (1,), (3,)) for i in (391895, 9)
    ]
    assert file.num_images == 2
    assert file.categories[1] == CategoryRecord(2, "cat", "cat.n.01", "f")
    assert list(file.annotations()) == data["annotations"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"file_name": "COCO_val2014_000000000009.jpg"}, "train2017/000000000009.jpg"),  # v0.5
        ({"file_name": "mine/9.jpg"}, "mine/9.jpg"),
        ({"file_name": "COCO_val2014_000000000009.jpg", "coco_url": None}, None),
    ],
)
def test_lvis_file_names(tmp_path: Path, fields: dict, name: str | None):
    data = official.lvis(tmp_path / "lvis.json", [9])
    write_json(tmp_path / "lvis.json", {**data, "images": [{**data["images"][0], **fields}]})
    (record,) = opened(tmp_path, "lvis.json").images()
    assert record.file_name == (name or fields["file_name"])


def frequencies(tmp_path: Path, *changes: tuple[int, str | None, int | None]) -> AnnotationSource:
    data = official.lvis(tmp_path / "lvis.json", [9])
    for place, frequency, count in changes:
        data["categories"][place].update(frequency=frequency, image_count=count)
    write_json(tmp_path / "lvis.json", data)
    return opened(tmp_path, "lvis.json", format="lvis")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((3, "r", 11), r"frequency 'r' of 'truffle.*contradicts its image_count 11 \(r: 0 to 10"),
        ((0, "c", 101), "contradicts its image_count 101"),
        ((0, "c", 10), "contradicts its image_count 10"),
        ((1, "f", 100), "contradicts its image_count 100"),
        ((1, "x", 500), r"categories\[1\]: frequency 'x' of 'cat' is none of r, c, f"),
        ((1, "f", -5), "image_count -5 is negative, not a whole number"),
    ],
)
def test_wrong_frequencies_are_named(tmp_path: Path, change: tuple, reason: str):
    with pytest.raises(DataError, match=reason):
        _ = frequencies(tmp_path, change).categories


def test_frequencies_at_the_bounds_and_of_a_part(tmp_path: Path):
    at_bounds = frequencies(tmp_path, (3, "r", 10), (0, "c", 11), (1, "f", 101), (2, "f", None))
    assert [c.frequency for c in at_bounds.categories] == ["c", "f", "f", "r"]
    # counts of a small part of the data are below most classes' frequencies: no contradiction
    part = frequencies(tmp_path, (0, "c", 2), (1, "f", 60), (2, "f", 70))
    assert len(part.categories) == 4


def test_lvis_sample(shared_data: Path):
    file = opened(shared_data / "lvis-sample", "instances.json")
    assert isinstance(file, LvisFile)
    assert len(file.categories) == 1230
    assert len(list(file.images())) == 44 == file.num_images
    assert len(list(file.annotations())) == 513


# ---------------------------------------------------------------- Objects365, Visual Genome, VOC


def test_objects365(tmp_path: Path):
    names = [
        "v1/patch8/objects365_v1_00420917.jpg",
        "v2/patch16/objects365_v2_00900256.jpg",
        "x.jpg",
    ]
    data = official.objects365(tmp_path / "o.json", names)
    file = opened(tmp_path, "o.json")
    assert [r.file_name for r in file.images()] == [
        "patch8/objects365_v1_00420917.jpg",
        "patch16/objects365_v2_00900256.jpg",
        "images/x.jpg",
    ]
    assert list(file.annotations()) == data["annotations"]
    passed = Counter()
    file = opened(tmp_path, "o.json", except_flagged=["isfake", "isreflected"])
    assert [raw["id"] for raw in file.annotations(passed)] == [1, 2]
    assert passed == {"isfake": 1}


def test_visual_genome(tmp_path: Path):
    official.visual_genome(tmp_path / "vg", {1: 77, 2: None})
    file = opened(tmp_path, "vg/objects.json")
    assert [(c.category_id, c.name, c.synset) for c in file.categories] == [
        (1, "cat.n.01", "cat.n.01"),
        (2, "lamp.n.02", "lamp.n.02"),
        (3, "tree.n.01", "tree.n.01"),
    ]
    assert list(file.images()) == [
        ImageRecord(1, "VG_100K_2/1.jpg", 60, 80),
        ImageRecord(2, "VG_100K/2.jpg", 60, 80),
    ]
    passed = Counter()
    found = list(file.annotations(passed))
    assert passed == {"object without synset": 2}
    assert [(raw["id"], raw["image_id"], raw["category_id"]) for raw in found] == [
        (101, 1, 1), (102, 1, 3), (104, 1, 2), (201, 2, 1), (202, 2, 3),
    ]  # fmt: skip
    checked = parse_annotation(found[0], 60, 80)
    assert checked.bbox_xyxy == (4, 6, 12, 16)
    assert checked.mask_rle is None


def test_visual_genome_without_some_images_of_coco(tmp_path: Path):
    official.visual_genome(tmp_path / "vg", {1: 77, 2: None, 3: 78})
    write_json(tmp_path / "val.json", {"images": [{"id": 77}]})
    source = chosen(
        tmp_path, "vg/objects.json", except_coco_ids={"file": "val.json", "key": "images.id"}
    )
    assert [record.image_id for record in source.images()] == [2, 3]
    passed = Counter()
    assert {raw["image_id"] for raw in source.annotations(passed)} == {2, 3}
    assert passed["on an image that is left out"] == 4


def test_voc(tmp_path: Path):
    official.voc(tmp_path / "VOC2012", ["2007_000032", "000033"])
    file = opened(tmp_path, "VOC2012/ImageSets/Segmentation/train.txt")
    assert list(file.images()) == [
        ImageRecord(2007000032, "2007_000032.jpg", 30, 40),
        ImageRecord(33, "000033.jpg", 30, 40),
    ]
    assert [c.name for c in file.categories][::14] == ["aeroplane", "person"]
    found = [parse_annotation(raw, 30, 40) for raw in file.annotations()]
    assert [a.category_id for a in found] == [8, 15, 8, 15]
    assert len({a.instance_id for a in found}) == 4
    assert found[1].bbox_xyxy == (11, 5, 20, 15)
    assert found[1].mask_rle is not None
    expected = np.zeros((30, 40), bool)
    expected[5:15, 11:20] = True
    assert np.array_equal(coco_rle.decode(found[1].mask_rle, 30, 40), expected)


def test_formats_are_recognised(tmp_path: Path):
    official.coco(tmp_path / "c.json", [1])
    assert type(opened(tmp_path, "c.json")) is CocoFile
    data = official.lvis(tmp_path / "bare.json", [1])
    for category in data["categories"]:
        del category["frequency"]
    write_json(tmp_path / "bare.json", data)
    bare = opened(tmp_path, "bare.json")
    assert isinstance(bare, LvisFile)
    assert [c.frequency for c in bare.categories] == [None] * 4
    write_json(tmp_path / "results.json", [{"image_id": 1, "score": 0.5}])
    with pytest.raises(DataError, match="a list of records without 'objects'"):
        opened(tmp_path, "results.json")
    with pytest.raises(DataError, match="a file of format coco has no such marks"):
        opened(tmp_path, "c.json", except_flagged=["isfake"])


# ---------------------------------------------------------------- one label space


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    """COCO and LVIS on images 1 and 2, Visual Genome's 1 is COCO's 2, its 2 is not in COCO."""
    official.coco(tmp_path / "coco.json", [1, 2])
    official.lvis(tmp_path / "lvis.json", [1, 2])
    official.coco_to_synset(tmp_path / "coco_to_synset.json")
    official.visual_genome(tmp_path / "vg", {1: 2, 2: None})
    return tmp_path


def labels_of(root: Path, *files: str, **fields) -> Labels:
    return open_labels(open_source(str(root)), LabelSpace(files=list(files), **fields))


def test_coco_in_the_classes_of_lvis(setting: Path):
    labels = labels_of(setting, "lvis.json")
    source = chosen(setting, "coco.json", labels, relabel={"file": "coco_to_synset.json"})
    assert [(c.category_id, c.name) for c in source.categories] == [(2, "cat"), (3, "person")]
    passed = Counter()
    found = [(raw["id"], raw["category_id"]) for raw in source.annotations(passed)]
    assert found == [(10, 3), (11, 2), (20, 3), (21, 2)]
    assert passed == {"of a class that is not in label_space": 2}
    by_name = chosen(setting, "coco.json", labels, relabel="name")
    assert list(by_name.annotations()) == list(source.annotations())
    table = {"names": {"person": "truffle_(chocolate)", "hot dog": "cat"}}
    by_table = chosen(setting, "coco.json", labels, relabel=table)
    found = [(raw["id"], raw["category_id"]) for raw in by_table.annotations()]
    assert found == [(10, 4), (12, 2), (20, 4), (22, 2)]


def test_absent_classes_are_renumbered_too(setting: Path):
    data = official.lvis(setting / "other.json", [1])
    for category in data["categories"]:
        category["id"] += 100
    data["images"][0].update(neg_category_ids=[101, 104], not_exhaustive_category_ids=[103])
    write_json(setting / "other.json", data)
    labels = labels_of(setting, "coco.json", match="name")
    (record,) = chosen(setting, "other.json", labels, relabel="name").images()
    assert (record.absent, record.not_exhaustive) == ((), (1,))


def test_classes_of_a_second_file_follow(setting: Path):
    labels = labels_of(setting, "lvis.json", "vg/objects.json")
    assert [(c.category_id, c.name) for c in labels.categories[3:]] == [
        (4, "truffle_(chocolate)"),
        (5, "lamp.n.02"),
        (6, "tree.n.01"),
    ]
    labels = labels_of(setting, "lvis.json", "vg/objects.json", min_images=2)
    assert [c.name for c in labels.categories[4:]] == ["tree.n.01"]
    assert labels.categories[:4] == labels_of(setting, "lvis.json").categories


@pytest.mark.parametrize("relabel", ["synset", SynsetFile(file="coco_to_synset.json")])
def test_two_files_on_the_same_images(setting: Path, relabel):
    labels = labels_of(setting, "lvis.json", "vg/objects.json")
    source = chosen(setting, ["lvis.json", "vg/objects.json"], labels, relabel=relabel)
    (record,) = source.images()
    assert (record.image_id, record.file_name) == (2, "train2017/000000000002.jpg")
    passed = Counter()
    found = list(source.annotations(passed))
    assert [(raw["id"], raw["image_id"], raw["category_id"]) for raw in found] == [
        (40, 2, 2), (42, 2, 4), (205, 2, 6), (209, 2, 5),
    ]  # fmt: skip
    assert found[2]["bbox"] == [4, 3, 4, 5]  # half of what it is in the larger copy
    assert "segmentation" in found[0]
    assert passed == {
        "on an image that not all files list": 2,
        "of a class that an earlier file has": 1,
        "object without synset": 1,
        "on an image that is left out": 3,
    }
    assert [c.category_id for c in source.categories] == [1, 2, 3, 4, 5, 6]


def test_pictures_of_another_shape_are_not_joined(setting: Path):
    data = official.coco(setting / "wide.json", [1], width=60)
    data["images"] += official.coco(setting / "same.json", [2])["images"]
    write_json(setting / "wide.json", data)
    source = chosen(setting, ["coco.json", "wide.json"])
    assert [record.image_id for record in source.images()] == [2]


def test_categories_of_no_file_do_not_become_others(setting: Path):
    data = official.coco(setting / "coco.json", [1])
    for raw, category_id in zip(data["annotations"], (2, "1", 17), strict=True):
        raw["category_id"] = category_id  # 2: a class of LVIS, none of this file
        raw["unknown_category_id"] = 3  # the user's own
    write_json(setting / "coco.json", data)
    labels = labels_of(setting, "lvis.json")
    source = chosen(setting, "coco.json", labels, relabel="name")
    first = next(iter(source.annotations()))
    with pytest.raises(DataError, match=r"NoCategory.* is not a whole number"):
        parse_annotation(first, 30, 40)
    images = ImageList([SourceImage(1, "1.jpg", 30, 40, 1)])
    rows = next(Selection(source, images, images.image_id_N, None).checked())
    assert [row[-1] for row in rows] == [
        "annotation 10: no category with id 2",
        "annotation 11: category_id '1' is a text, not a whole number",
        None,
    ]


def test_mistakes_with_labels(setting: Path):
    labels = labels_of(setting, "lvis.json")
    with pytest.raises(DataError, match="category 1 is 'person', in label_space 'aerosol_can'"):
        chosen(setting, "coco.json", labels)
    with pytest.raises(DataError, match="category 'person' has no synset"):
        chosen(setting, "coco.json", labels, relabel="synset")
    official.objects365(setting / "o.json", ["v1/patch0/a.jpg"])
    with pytest.raises(DataError, match="none of its 2 classes is in label_space"):
        chosen(setting, "o.json", labels, relabel="name")
    write_json(setting / "s.json", {"person": {"coco_cat_id": 2, "synset": "person.n.01"}})
    with pytest.raises(DataError, match="'person' is category 2, in the annotation file 1"):
        chosen(setting, "coco.json", labels, relabel={"file": "s.json"})
    write_json(setting / "s.json", {"person": 1})
    with pytest.raises(DataError, match="no synset for class 'person'"):
        chosen(setting, "coco.json", labels, relabel={"file": "s.json"})
    with pytest.raises(DataError, match=r"no class 'persons'\n.*did you mean 'person'"):
        chosen(setting, "coco.json", labels, relabel={"names": {"persons": "person"}})
    with pytest.raises(DataError, match=r"label_space: .*no class 'Cat'\n.*did you mean 'cat'"):
        chosen(setting, "coco.json", labels, relabel={"names": {"cat": "Cat"}})
    with pytest.raises(DataError, match="category 1 is 'person' and 'aerosol_can'"):
        chosen(setting, ["coco.json", "lvis.json"])
    data = official.lvis(setting / "twice.json", [1])
    data["categories"][0]["synset"] = "cat.n.01"
    write_json(setting / "twice.json", data)
    twice = labels_of(setting, "twice.json")
    with pytest.raises(DataError, match=r"synset 'cat.n.01' is that of categories 1, 2"):
        chosen(setting, "coco.json", twice, relabel={"file": "coco_to_synset.json"})
