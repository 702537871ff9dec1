"""Which images belong to which set."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_folder import folder_config, image_bytes, make_coco_folder, write_json
from pydantic import ValidationError

from gcdis_ray.data.sets.data_config import SPLITS, DataConfig
from gcdis_ray.data.sets.splits import DataPlan, plan_data
from gcdis_ray.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data", 24)
    return tmp_path / "data"


def plan(root: Path, /, **changes) -> DataPlan:
    return plan_data(DataConfig(**drop(folder_config(root, **changes))))


def drop(config: dict) -> dict:
    return {k: v for k, v in config.items() if k != "images_per_shard"}


def ids(found: DataPlan) -> dict[str, list[int]]:
    return {split: [image.image_id for image in found.images[split]] for split in SPLITS}


def test_by_list(root: Path):
    assert ids(plan(root)) == {
        "labeled": list(range(1, 9)),
        "unlabeled": list(range(9, 17)),
        "validation": list(range(17, 25)),
    }


def test_by_part_of_one_file(root: Path):
    def part(low: float, high: float) -> dict:
        return {"images": "images", "annotations": "all.json", "part": [low, high]}

    changes = dict(labeled=part(0, 0.4), unlabeled=part(0.4, 0.8), validation=part(0.8, 1))
    found = ids(plan(root, **changes))
    assert sorted(i for members in found.values() for i in members) == list(range(1, 25))
    assert all(found.values())
    # an image stays where it is when others go
    data = make_coco_folder(root.parent / "fewer", 24)
    data["images"] = data["images"][::2]
    write_json(root.parent / "fewer/all.json", data)
    fewer = ids(plan(root.parent / "fewer", **changes))
    for split in SPLITS:
        assert set(fewer[split]) == {i for i in found[split] if i % 2}


def test_plain_folders(root: Path):
    for name in ("b/y.PNG", "x.jpg", "notes.txt", ".hidden.jpg"):
        path = root / "plain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(1, suffix=".png"))
    found = plan(root, unlabeled={"images": "plain"})
    images = found.images["unlabeled"]
    assert {image.uri for image in images} == {"plain/b/y.PNG", "plain/x.jpg"}
    assert all(0 <= image.image_id < 2**53 and image.height_px is None for image in images)
    again = plan(root, unlabeled={"images": "plain"})
    assert again.images == found.images


def linked_to(root: Path, name: str, target: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)


@pytest.mark.parametrize(
    ("link", "target", "count"),
    [
        ("plain/more", "../images", "8 files are"),
        ("plain/deep/more", "../../beside", "8 files are"),  # a link to a link
        ("plain/mine.jpg", "../images/3.jpg", "1 file is"),
        ("plain/up", "..", None),  # not followed
        ("plain/deep/up", "../..", None),
    ],
)
def test_no_file_is_in_two_sets_by_a_link(root: Path, link: str, target: str, count: str | None):
    (root / "beside").symlink_to("images")
    linked_to(root, link, target)
    (root / "plain/own.jpg").write_bytes(image_bytes(99))
    changes = {"unlabeled": {"images": "plain"}}
    if count is not None:
        with pytest.raises(
            DataError, match=rf"{count} in both by two names: plain/\S+ is images/"
        ) as caught:
            plan(root, **changes)
        assert caught.value.where == "stages.ingest.labeled and stages.ingest.unlabeled"
    else:
        found = plan(root, **changes)
        assert [image.uri for image in found.images["unlabeled"]] == ["plain/own.jpg"]
        assert found.left_out() == {"links to folders they lie in": 1}


def test_no_file_is_in_two_listed_sets_by_a_link(root: Path):
    (root / "current").symlink_to("images")
    unlabeled = {"images": "current", "annotations": "all.json", "ids": "name"}
    of = lambda key: {**unlabeled, "image_ids": {"file": "lists.json", "key": key}}  # noqa: E731
    with pytest.raises(
        DataError, match=r"8 files are in both by two names: current/\S+ is images/"
    ):
        plan(root, unlabeled=of("l"))
    assert len(plan(root, unlabeled=of("u")).images["unlabeled"]) == 8


def test_files_that_number_alike(root: Path):
    make_coco_folder(root / "second", 4)
    changes = {"unlabeled": {"images": "second/images", "annotations": "second/all.json"}}
    with pytest.raises(DataError, match="4 image ids stand for two images"):
        plan(root, **changes)
    changes["unlabeled"]["ids"] = "name"
    found = plan(root, **changes)
    assert [i.file_id for i in sorted(found.images["unlabeled"], key=lambda i: i.uri)] == [
        1,
        2,
        3,
        4,
    ]


def test_unlabeled_images_can_be_those_of_the_labeled_set_too(root: Path):
    everything = {"images": "images", "annotations": "all.json", "shared": True}
    everything["except_image_ids"] = {"file": "lists.json", "key": "v"}
    images = plan(root, unlabeled=everything).images
    assert len(images["unlabeled"]) == 16
    assert {i.uri for i in images["labeled"]} < {i.uri for i in images["unlabeled"]}
    assert not {i.image_id for i in images["labeled"]} & {i.image_id for i in images["unlabeled"]}
    assert sorted(i.file_id for i in images["unlabeled"]) == list(range(1, 17))
    del everything["except_image_ids"]
    with pytest.raises(DataError, match="8 images occur twice"):  # those of validation
        plan(root, unlabeled=everything)
    with pytest.raises(ValidationError, match="only the unlabeled set can share"):
        plan(root, validation={"images": "images", "annotations": "all.json", "shared": True})


def test_known_classes(root: Path):
    def known(value) -> list[tuple[int, str]]:
        return [(c.category_id, c.name) for c in plan(root, known_classes=value).known]

    assert known(["owl", "cat"]) == known([7, 1]) == known(["cat", 7, "owl"])
    assert known(["owl", "cat"]) == [(1, "cat"), (7, "owl")]  # class_index follows the ids
    write_json(root / "k.json", {"a": {"b": ["dog"]}})
    assert known({"file": "k.json", "key": "a.b"}) == [(2, "dog")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"root": "/nowhere/at/all"}, r"root: no such folder"),
        ({"labeled": {"images": "imgs", "annotations": "all.json"}}, "labeled.images: no such"),
        ({"labeled": {"images": "images", "annotations": "a.json"}}, "a.json: no such file"),
        ({"unlabeled": {"images": "images"}}, "16 images occur twice"),
        ({"unlabeled": {"images": "empty"}}, "unlabeled: no image file in"),
        ({"known_classes": ["catt"]}, r"no class 'catt'\n.*did you mean 'cat'"),
        ({"known_classes": ["zebra"]}, r"no class 'zebra'\n.*valid are 'cat'"),
        ({"known_classes": [3]}, r"no class 3\n.*nearest ids are 2, 1"),
        ({"known_classes": ["z" * 1000]}, r"no class 'z+\.\.\.z+'\n.*valid are 'cat', .*'fox'"),
        ({"known_classes": []}, "no known class"),
        ({"known_classes": {"file": "no.json", "key": "k"}}, "no such file"),
        ({"known_classes": {"file": "lists.json", "key": "k"}}, r"no 'k' in .*\n.*it has 'l'"),
        ({"known_classes": {"file": "all.json", "key": "images"}}, "no list of names or ids"),
        ({"known_classes": {"file": "images/1.jpg", "key": "k"}}, "not valid JSON"),
    ],
)
def test_mistakes_in_a_line_or_two(root: Path, changes: dict, reason: str):
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=reason) as caught:
        plan(root, **changes)
    assert len(str(caught.value).splitlines()) <= 2


def test_lists_of_other_files(root: Path):
    write_json(root / "lists.json", {"l": [1, 999], "u": [], "v": [20]})
    with pytest.raises(DataError, match=r"1 image id is not in .*all.json, such as 999"):
        plan(root)
    write_json(root / "lists.json", {"l": [1], "u": [], "v": [20]})
    with pytest.raises(DataError, match=r"unlabeled: no image of .*all.json is taken"):
        plan(root)
    write_json(root / "lists.json", {"l": [1, 2], "u": [2, 3], "v": [4]})
    with pytest.raises(
        DataError,
        match=r"labeled and stages.ingest.unlabeled: 1 image occurs twice.*\n.*keep the sets apart",
    ):
        plan(root)


@pytest.mark.parametrize(
    "changes",
    [
        {"labeled": {"images": "images"}},
        {"labeled": {"images": "../images", "annotations": "all.json"}},
        {"labeled": {"images": "images", "annotations": "/etc/passwd"}},
        {"unlabeled": {"images": "images", "image_ids": {"file": "lists.json", "key": "u"}}},
        {"unlabeled": {"images": "images", "part": [0.5, 0.5]}},
        {"unlabeled": {"images": "images", "part": [-0.1, 0.5]}},
        {"unlabeled": {"images": "images", "part": [0, 1.1]}},
        {"unlabeled": {"images": "images", "parts": [0, 1]}},
        {"max_quarantined_share": 1.01},
        {"max_quarantined_share": -0.01},
        {"known_classes": {"file": "../x.json", "key": "k"}},
    ],
)
def test_configs_refused(root: Path, changes: dict):
    with pytest.raises(ValidationError):
        DataConfig(**drop(folder_config(root, **changes)))


def test_the_folder_may_move(root: Path):
    config = DataConfig(**drop(folder_config(root)))
    assert "root" not in config.key_fields()
    assert config.key_fields()["known_classes"] == ["cat", "dog"]
