"""Ingest: the tables, the quarantine, and that nothing sealed gets in."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from class_folders import crop_folders_config, make_crop_folders
from coco_folder import (
    HEIGHT,
    WIDTH,
    folder_config,
    image_bytes,
    make_coco_folder,
    square,
    write_json,
)
from pydantic import ValidationError
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.stages import ground_truth, ingest
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import LocalFolder
from gcdis_ray.store.storage import LocalStorage
from gcdis_ray.training.plan import Progress


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def new_work(tmp_path: Path) -> Callable[[], StageWork]:
    """A fresh Work for every run in a test."""
    compute = ComputeConfig(runtime="local", workers=1, threads=1)
    numbers = iter(range(100))

    def make() -> StageWork:
        attempt = Attempt(
            LocalStorage(str(tmp_path / f"out{next(numbers)}")), "ingest/k", "attempt-0", SCHEMAS
        )
        return StageWork(attempt, lambda: LocalRuntime(compute), compute, 0, lambda progress: None)

    return make


def config(root: Path, /, **changes) -> ingest.Config:
    return ingest.Config(**folder_config(root, **changes))


def done(work: StageWork, config: ingest.Config) -> StageWork:
    ingest.run({}, config, work)
    return work


def hashes(work: StageWork) -> dict[str, list[str]]:
    return {name: [record.sha256 for record in records] for name, records in work.files.items()}


def read_json(work: StageWork, member: str):
    opener = work.table("images").opener
    return json.loads(opener.read_bytes(work.files[member][0]))


def test_tables(root: Path, local_work: StageWork):
    done(local_work, config(root))
    images = local_work.table("images")
    assert images.num_shards == 6  # two of three images at most, and two of each split
    for shard in images.iter_shards(["split"]):
        assert len(set(shard["split"].to_pylist())) == 1
    rows = images.read().to_pylist()
    assert [row["split"] for row in rows] == ["labeled"] * 4 + ["unlabeled"] * 4 + [
        "validation"
    ] * 4
    assert [row["image_id"] for row in rows] == list(range(1, 13))
    for row in rows:
        stored = (root / row["uri"]).read_bytes()
        assert row["bytes"] == stored
        assert row["sha256"] == hashlib.sha256(stored).hexdigest()
        assert (row["height_px"], row["width_px"]) == (HEIGHT, WIDTH)
    instances = local_work.table("instances")
    assert instances.num_shards == 6
    assert [instances.shard(i).num_rows for i in range(6)] == [3, 1, 0, 0, 0, 0]
    found = instances.read().to_pylist()
    assert [row["instance_id"] for row in found] == [10, 20, 30, 40]
    assert [row["class_index"] for row in found] == [1, 0, 1, 0]
    assert [row["category_id"] for row in found] == [2, 1, 2, 1]
    want = coco_rle.rle_from_polygons(square(3, 5, 10), HEIGHT, WIDTH)
    assert {row["mask_rle"] for row in found} == {want}
    assert found[0]["bbox_xyxy"] == [3, 5, 13, 15]
    assert local_work.table("quarantine").num_rows == 0
    assert read_json(local_work, "classes") == [
        {"category_id": 1, "class_index": 0, "name": "cat"},
        {"category_id": 2, "class_index": 1, "name": "dog"},
    ]


def test_schemas_are_plain_and_ids_unique(root: Path, local_work: StageWork):
    done(local_work, config(root))
    for name in ("images", "instances", "quarantine"):
        table = local_work.table(name).read()
        assert table.schema.equals(SCHEMAS[name])
        assert not any(isinstance(field.type, pa.ExtensionType) for field in table.schema)
    for name, unique in (("images", "image_id"), ("instances", "instance_id")):
        ids = local_work.table(name).read()[unique].to_pylist()
        assert len(set(ids)) == len(ids)


# ---------------------------------------------------------------- sealed ground truth


def permuted(data: dict, sealed: list[dict]) -> None:
    categories = [a["category_id"] for a in sealed]
    random.Random(0).shuffle(categories)
    for annotation, category_id in zip(sealed, categories, strict=True):
        annotation["category_id"] = category_id
    random.Random(1).shuffle(data["annotations"])


def deleted(data: dict, sealed: list[dict]) -> None:
    data["annotations"] = [a for a in data["annotations"] if a not in sealed]


def moved(data: dict, sealed: list[dict]) -> None:
    for annotation in sealed:
        annotation.update(segmentation=square(1, 1, 20), bbox=[1, 1, 20, 20], area=7, iscrowd=1)


def broken(data: dict, sealed: list[dict]) -> None:
    for annotation in sealed:
        annotation.update(segmentation="rubbish", bbox=[-1], area=None, id=10, category_id=555)


def stripped(data: dict, sealed: list[dict]) -> None:
    for annotation in sealed:
        image_id = annotation["image_id"]
        annotation.clear()
        annotation["image_id"] = image_id


@pytest.mark.parametrize("spoil", [permuted, deleted, moved, broken, stripped])
@pytest.mark.parametrize("novel_too", [False, True])
def test_sealed_annotations_change_nothing(root: Path, new_work, spoil, novel_too: bool):
    """All sets share one file; what is sealed in it is changed in every way."""
    settings = config(root)
    key, before = ingest.source(settings), hashes(done(new_work(), settings))
    data = json.loads((root / "all.json").read_text())
    labeled = {1, 2, 3, 4}
    sealed = [a for a in data["annotations"] if a["image_id"] not in labeled]
    if novel_too and spoil in (deleted, moved):  # novel objects of labeled images are sealed too
        sealed = [a for a in data["annotations"] if a["image_id"] not in labeled or a["id"] % 10]
    before_text = copy.deepcopy(data)
    spoil(data, sealed)
    assert data != before_text
    write_json(root / "all.json", data)
    assert ingest.source(settings) == key
    assert hashes(done(new_work(), settings)) == before


def edit(root: Path, change: Callable[[dict], None]) -> None:
    data = json.loads((root / "all.json").read_text())
    change(data)
    write_json(root / "all.json", data)


def test_what_is_told_does_count(root: Path):
    """The opposite of the test above: the fingerprint sees labels, images and lists."""
    partial = {**folder_config(root)["unlabeled"], "partial": True}
    settings = config(root, known_classes=[1, 2], unlabeled=partial)
    lists = {"l": [1, 2, 3, 4], "u": [5, 6, 7], "v": [8, 9, 10, 11, 12]}
    changes = [
        lambda: edit(root, lambda data: data["annotations"][0].update(category_id=1)),
        lambda: edit(root, lambda data: data["annotations"][0].update(bbox=[3, 5, 10, 11])),
        lambda: edit(root, lambda data: data["annotations"].pop(0)),
        lambda: edit(root, lambda data: data["categories"][2].update(name="lion")),
        lambda: edit(root, lambda data: data["images"][7].update(height=HEIGHT + 1)),
        lambda: (root / "images/5.jpg").write_bytes(image_bytes(99)),
        lambda: (root / "images/6.jpg").unlink(),
        lambda: write_json(root / "lists.json", lists),
    ]
    keys = [ingest.source(settings)]
    for change in changes:
        change()
        keys.append(ingest.source(settings))
    assert len(set(keys)) == len(changes) + 1


def test_a_fingerprint_tells_how_far_it_is(root: Path):
    told: list[Progress] = []
    ingest.source(config(root), told.append)
    assert [(p.done, p.total) for p in told] == [(i, 4) for _ in range(3) for i in range(4)]


def test_a_missing_image_is_named_unless_the_set_may_be_partial(root: Path, local_work: StageWork):
    (root / "images/6.jpg").unlink()
    with pytest.raises(DataError, match=r"unlabeled.images: 1 of 4 images is missing: .* 6.jpg"):
        ingest.source(config(root))
    partial = {**folder_config(root)["unlabeled"], "partial": True}
    settings = config(root, unlabeled=partial)
    ingest.source(settings)
    done(local_work, settings)
    assert 6 not in local_work.table("images").read(["image_id"])["image_id"].to_pylist()
    assert local_work.counts["images_missing"] == 1
    assert local_work.counts["images_quarantined"] == 0


def test_order_and_layout_of_the_file_do_not_count(root: Path, new_work):
    settings = config(root)
    key, before = ingest.source(settings), hashes(done(new_work(), settings))
    data = json.loads((root / "all.json").read_text())
    for part in ("images", "annotations", "categories"):
        data[part] = [dict(reversed(row.items())) for row in reversed(data[part])]
    (root / "all.json").write_text(json.dumps(dict(reversed(data.items())), indent=3))
    assert ingest.source(settings) == key
    assert hashes(done(new_work(), settings)) == before


def test_fingerprint_by_size_and_time(root: Path):
    settings = config(root, fingerprint="stat")
    key = ingest.source(settings)
    assert ingest.source(settings) == key != ingest.source(config(root))
    (root / "images/5.jpg").write_bytes(image_bytes(98))
    assert ingest.source(settings) != key
    assert settings.key_fields() == config(root).key_fields()


@pytest.mark.parametrize("fingerprint", ["content", "stat"])
def test_the_service_counts_where_files_stay_in_it(
    root: Path, s3_endpoint: str, monkeypatch, fingerprint: str
):
    uri = f"s3://bucket/{root.parent.name}"
    here, there = LocalFolder(str(root)), Prefix(uri, s3_endpoint)
    for name in here.names(""):
        there.write(name, here.read(name))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    for store in ("bytes", "uri"):
        changes = {"root": uri, "store": store, "fingerprint": fingerprint}
        one, other = config(root, **changes), config(root, **changes, endpoint=s3_endpoint)
        assert one.key_fields() == other.key_fields()
        assert (ingest.source(one) == ingest.source(other)) == (store == "bytes")


# ---------------------------------------------------------------- bad data


def test_bad_images_are_quarantined(root: Path, local_work: StageWork):
    def spoil(number: int, data: bytes) -> None:
        (root / f"images/{number}.jpg").write_bytes(data)

    spoil(1, image_bytes(1)[:-150])
    spoil(5, b"these are words")
    spoil(6, b"")
    spoil(9, image_bytes(1, HEIGHT * 2))
    (root / "images/10.jpg").unlink()
    spoil(11, image_bytes(11, suffix=".webp"))  # another name, still an image
    done(local_work, config(root, max_quarantined_share=0.5))
    reasons = {
        row["uri"]: (row["split"], row["reason"])
        for row in local_work.table("quarantine").read().to_pylist()
    }
    assert set(reasons) == {f"images/{i}.jpg" for i in (1, 5, 6, 9, 10)}
    assert reasons["images/1.jpg"][0] == "labeled"
    assert "truncated" in reasons["images/1.jpg"][1]
    assert "not a JPEG" in reasons["images/5.jpg"][1]
    assert "empty" in reasons["images/6.jpg"][1]
    assert reasons["images/9.jpg"] == (
        "validation",
        "60 x 40 pixels (height x width), the annotation file says 30 x 40",
    )
    assert "missing" in reasons["images/10.jpg"][1]
    kept = local_work.table("images").read(["image_id"])["image_id"].to_pylist()
    assert kept == [2, 3, 4, 7, 8, 11, 12]  # nothing else is lost
    assert local_work.table("instances").read(["image_id"])["image_id"].to_pylist() == [2, 3, 4]
    assert local_work.counts["images_quarantined"] == 5


def test_too_many_bad_images_stop(root: Path, local_work: StageWork):
    (root / "images/5.jpg").write_bytes(b"words")
    with pytest.raises(DataError, match=r"1 of 4 images.*images/5.jpg: not a JPEG") as caught:
        done(local_work, config(root, max_quarantined_share=0.2))
    assert caught.value.where == "stages.ingest.unlabeled.images"
    assert "max_quarantined_share" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_bad_annotations_are_quarantined(root: Path, local_work: StageWork):
    data = json.loads((root / "all.json").read_text())
    rows = {a["id"]: a for a in data["annotations"]}
    rows[10]["segmentation"] = square(3, 5, 0)
    data["annotations"].append({**rows[20], "id": 15, "segmentation": square(35, 5, 10)})
    data["annotations"].append({**rows[30], "id": 40})
    data["annotations"].append({**rows[30], "id": 41, "image_id": 404})
    write_json(root / "all.json", data)
    done(local_work, config(root, max_quarantined_share=0.8))
    found = local_work.table("quarantine").read().to_pylist()
    assert {row["uri"] for row in found} == {"images/2.jpg", "images/4.jpg", "all.json"}
    text = "\n".join(row["reason"] for row in found)
    for reason in (
        "outside the image",
        "its id occurs twice",
        "no image with id 404",
    ):
        assert reason in text
    instances = local_work.table("instances").read(["instance_id", "mask_rle", "bbox_xyxy"])
    first, *others = instances.to_pylist()
    assert first == {"instance_id": 10, "mask_rle": None, "bbox_xyxy": [3, 5, 13, 15]}
    assert [row["instance_id"] for row in others] == [20, 30, 40]
    assert all(row["mask_rle"] for row in others)
    assert local_work.counts["annotations_quarantined"] == 3
    assert local_work.counts["boxes_only: zero-area mask"] == 1


def test_boxes_without_masks(root: Path, local_work: StageWork):
    edit(root, lambda data: [a.pop("segmentation") for a in data["annotations"]])
    done(local_work, config(root))
    assert local_work.table("instances").read(["mask_rle"])["mask_rle"].to_pylist() == [None] * 4


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "all.json").write_text('{"images": [{"id": 1,'), "truncated JSON"),
        (lambda root: (root / "all.json").unlink(), "no such file"),
        (lambda root: [p.unlink() for p in root.glob("images/*")], "none of its 4 images exists"),
        (lambda root: write_json(root / "all.json", {"images": []}), "no 'categories' in it"),
    ],
)
def test_stops_before_any_work(root: Path, spoil, reason: str):
    settings = config(root)
    spoil(root)
    with pytest.raises(DataError, match=reason) as caught:
        ingest.source(settings)
    assert len(str(caught.value).splitlines()) <= 2


def test_hostile_file_name(root: Path):
    (root.parent / "secret.jpg").write_bytes(image_bytes(0))
    edit(root, lambda data: data["images"][0].update(file_name="../../secret.jpg"))
    with pytest.raises(DataError, match="leaves the image folder"):
        ingest.source(config(root))


def test_known_class_without_object(root: Path, local_work: StageWork):
    edit(root, lambda data: data["categories"].append({"id": 11, "name": "yeti"}))
    with pytest.raises(DataError, match=r"1 of 3 known classes has no object.*yeti"):
        done(local_work, config(root, known_classes=["cat", "dog", "yeti"]))


@pytest.mark.parametrize("name", ["images_per_shard", "max_image_bytes", "max_image_pixels"])
def test_bounds(root: Path, name: str):
    field = ingest.Config.model_json_schema()["properties"][name]
    for value in (field["minimum"], field["maximum"]):
        config(root, **{name: value})
    for value in (field["minimum"] - 1, field["maximum"] + 1):
        with pytest.raises(ValidationError):
            config(root, **{name: value})


# ---------------------------------------------------------------- whole data sets


def test_digit_scenes(tmp_path: Path, local_work: StageWork):
    write_scenes(tmp_path / "d", num_labeled=10, num_unlabeled=8, num_validation=5)

    def chosen(name: str) -> dict:
        return {"images": f"images/{name}", "annotations": f"annotations/{name}.json"}

    settings = ingest.Config(
        root=str(tmp_path / "d"),
        labeled=chosen("labeled"),
        unlabeled=chosen("unlabeled"),
        validation=chosen("validation"),
        known_classes=[f"digit {i}" for i in range(5)],
    )
    done(local_work, settings)
    assert local_work.table("images").num_rows == 23
    assert local_work.table("quarantine").num_rows == 0
    truth = json.loads((tmp_path / "d/annotations/labeled.json").read_text())["annotations"]
    found = local_work.table("instances").read().to_pylist()
    assert [row["mask_rle"] for row in found] == [a["segmentation"]["counts"] for a in truth]
    assert all(row["class_index"] == row["category_id"] - 1 for row in found)


def test_real_photographs(shared_data: Path, local_work: StageWork):
    def part(low: float, high: float, key: str) -> dict:
        ids = {"file": "splits.json", "key": key}
        return {
            "images": "images",
            "annotations": "instances.json",
            "image_ids": ids,
            "part": [low, high],
            "part_seed": 5,
        }

    root = shared_data / "coco-subset"
    settings = ingest.Config(
        root=str(root),
        labeled=part(0, 0.5, "train"),
        unlabeled=part(0.5, 1, "train"),
        validation=part(0, 1, "val"),
        known_classes={"file": "splits.json", "key": "known_voc20_category_ids"},
        images_per_shard=100,
    )
    done(local_work, settings)
    images = local_work.table("images").read(["image_id", "split"])
    assert images.num_rows == 343
    assert images["split"].to_pylist().count("validation") == 87
    lists = json.loads((root / "splits.json").read_text())
    known = set(lists["known_voc20_category_ids"])
    labeled = {
        i for i, s in zip(*(c.to_pylist() for c in images.columns), strict=True) if s == "labeled"
    }
    assert labeled < set(lists["train"])
    data = json.loads((root / "instances.json").read_text())
    want = {
        a["id"]
        for a in data["annotations"]
        if a["image_id"] in labeled and a["category_id"] in known
    }
    instances = local_work.table("instances").read(["instance_id", "class_index"])
    assert set(instances["instance_id"].to_pylist()) == want
    assert np.array_equal(np.unique(instances["class_index"]), range(20))


# ---------------------------------------------------------------- labels of whole images


def test_class_folders(tmp_path: Path, local_work: StageWork):
    """Folders of labeled images are labels; those of unlabeled ones are read by nobody here. A file
    that cannot be read has no object."""
    make_crop_folders(tmp_path / "d")
    (tmp_path / "d/labeled/cat/9.png").write_bytes(b"no picture")
    chosen = ingest.Config(**crop_folders_config(tmp_path / "d", max_quarantined_share=0.2))
    done(local_work, chosen)
    sizes = {
        row["image_id"]: (row["height_px"], row["width_px"])
        for row in local_work.table("images").read().to_pylist()
    }
    rows = local_work.table("instances").read().to_pylist()
    assert len(rows) == 12
    for row in rows:
        height, width = sizes[row["image_id"]]
        assert (row["height_px"], row["width_px"]) == (height, width)
        assert row["bbox_xyxy"] == [0, 0, width, height]
        assert row["area_px"] == height * width
        assert row["mask_rle"] is None
    assert {row["name"] for row in read_json(local_work, "classes")} == {"cat", "dog"}
    assert local_work.table("quarantine").num_rows == 1


def test_annotations_without_a_place_label_the_image(root: Path, local_work: StageWork):
    data = json.loads((root / "all.json").read_text())
    names = ("id", "image_id", "category_id")
    data["annotations"] = [{name: a[name] for name in names} for a in data["annotations"][::2]]
    write_json(root / "all.json", data)
    done(local_work, config(root))
    rows = local_work.table("instances").read().to_pylist()
    assert [row["instance_id"] for row in rows] == [10, 20, 30, 40]
    assert {tuple(row["bbox_xyxy"]) for row in rows} == {(0, 0, WIDTH, HEIGHT)}
    assert {row["mask_rle"] for row in rows} == {None}
    assert local_work.table("quarantine").num_rows == 0


def test_one_without_a_place_among_others_is_a_mistake(root: Path, local_work: StageWork):
    data = json.loads((root / "all.json").read_text())
    data["annotations"][2] = {"id": 20, "image_id": 2, "category_id": 1}
    write_json(root / "all.json", data)
    with pytest.raises(DataError, match="neither mask nor box"):
        done(local_work, config(root))


def test_without_validation_images(root: Path, local_work: StageWork):
    data = folder_config(root)
    del data["validation"]
    done(local_work, ingest.Config(**data))
    assert set(local_work.table("images").read()["split"].to_pylist()) == {"labeled", "unlabeled"}
    assert ingest.source(ingest.Config(**data)) != ingest.source(config(root))


@pytest.mark.parametrize("fingerprint", ["stat", "content"])
def test_a_class_folder_of_another_name_is_another_source(tmp_path: Path, fingerprint: str):
    make_crop_folders(tmp_path)
    chosen = ingest.Config(**crop_folders_config(tmp_path, fingerprint=fingerprint))
    before = ingest.source(chosen), ground_truth.source(chosen)
    assert before == (ingest.source(chosen), ground_truth.source(chosen))
    (tmp_path / "unlabeled/owl").rename(tmp_path / "unlabeled/bat")
    after = ingest.source(chosen), ground_truth.source(chosen)
    assert before[0] != after[0]  # an image's name is part of it
    assert before[1] != after[1]
