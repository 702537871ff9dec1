"""Ground truth: what ingest may not see, and nothing of what it sees."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from class_folders import NUM_UNLABELED, crop_folders_config, make_crop_folders
from coco_folder import HEIGHT, WIDTH, folder_config, make_coco_folder, square, write_json
from scene_tables import FakeArtifact
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.run.work import StageWork, local_work
from gcdis_ray.stages import ground_truth, ingest
from gcdis_ray.store.schemas import TRUTH_IMAGES, TRUTH_INSTANCES
from gcdis_ray.store.storage import LocalStorage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def new_work(tmp_path: Path) -> Callable[[str], StageWork]:
    return lambda name: local_work(LocalStorage(str(tmp_path / name)), SCHEMAS)


def config(root: Path, /, **changes) -> ground_truth.Config:
    return ground_truth.Config(**folder_config(root, **changes))


def edit(root: Path, change: Callable[[dict], object]) -> None:
    data = json.loads((root / "all.json").read_text())
    change(data)
    write_json(root / "all.json", data)


def read_json(work: StageWork, member: str):
    opener = work.table("truth_images").opener
    return json.loads(opener.read_bytes(work.files[member][0]))


def test_everything_but_the_labeled(root: Path, local_work: StageWork):
    ground_truth.run({}, config(root), local_work)
    images = local_work.table("truth_images").read()
    assert images.schema.equals(TRUTH_IMAGES)
    assert images["image_id"].to_pylist() == list(range(5, 13))
    assert images["split"].to_pylist() == ["unlabeled"] * 4 + ["validation"] * 4
    table = local_work.table("truth_instances").read()
    assert table.schema.equals(TRUTH_INSTANCES)
    rows = table.to_pylist()
    assert [row["instance_id"] for row in rows] == [
        i for n in range(5, 13) for i in (10 * n, 10 * n + 1)
    ]
    assert {row["category_id"]: row["class_index"] for row in rows} == {1: 0, 2: 1, 7: -1, 9: -1}
    want = coco_rle.rle_from_polygons(square(20, 5, 10), HEIGHT, WIDTH)
    assert rows[1]["mask_rle"] == want
    assert rows[1]["bbox_xyxy"] == [20, 5, 30, 15]
    assert read_json(local_work, "categories") == [
        {"category_id": 1, "class_index": 0, "known": True, "name": "cat", "frequency": None},
        {"category_id": 2, "class_index": 1, "known": True, "name": "dog", "frequency": None},
        {"category_id": 7, "class_index": -1, "known": False, "name": "owl", "frequency": None},
        {"category_id": 9, "class_index": -1, "known": False, "name": "fox", "frequency": None},
    ]


def test_image_ids_equal_those_of_ingest(root: Path, tmp_path: Path, local_work: StageWork):
    """Also where ids are made from names."""
    settings = config(root, unlabeled={**folder_config(root)["unlabeled"], "ids": "name"})
    ground_truth.run({}, settings, local_work)
    ingest.run({}, settings, local_work)
    of_split = {}
    for member in ("truth_images", "images"):
        rows = local_work.table(member).read(["image_id", "split"]).to_pylist()
        of_split[member] = {r["image_id"]: r["split"] for r in rows if r["split"] != "labeled"}
    assert of_split["truth_images"] == of_split["images"]
    assert max(of_split["images"]) > 2**40


def test_fingerprint_sees_sealed_annotations_only(root: Path):
    settings = config(root)
    key = ground_truth.source(settings)
    edit(root, lambda data: data["annotations"][0].update(category_id=1))  # a labeled one
    edit(root, lambda data: data["annotations"].reverse())
    for path in root.glob("images/*"):
        path.write_bytes(b"images are not read")
    assert ground_truth.source(settings) == key
    edit(root, lambda data: data["annotations"][0].update(category_id=1))  # now a validation one
    assert ground_truth.source(settings) != key


def test_sets_without_annotations_have_no_truth(root: Path, local_work: StageWork):
    (root / "more").mkdir()
    (root / "more/a.jpg").write_bytes((root / "images/1.jpg").read_bytes())
    ground_truth.run({}, config(root, unlabeled={"images": "more"}), local_work)
    assert set(local_work.table("truth_images").read()["split"].to_pylist()) == {"validation"}


def test_deleted_truth_is_unknown_not_empty(root: Path, local_work: StageWork):
    def change(data: dict) -> None:
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] <= 4]

    edit(root, change)
    ground_truth.run({}, config(root), local_work)
    assert local_work.table("truth_images").num_rows == 0
    assert local_work.table("truth_instances").num_rows == 0


def test_bad_truth_is_counted_and_limited(root: Path, local_work: StageWork):
    edit(root, lambda data: data["annotations"][-1].update(segmentation=square(35, 5, 20)))
    with pytest.raises(DataError, match="1 of 8 annotations cannot be used"):
        ground_truth.run({}, config(root), local_work)


def test_bad_truth_below_the_limit(root: Path, local_work: StageWork):
    edit(root, lambda data: data["annotations"][-1].update(segmentation=square(35, 5, 20)))
    ground_truth.run({}, config(root, max_quarantined_share=0.2), local_work)
    assert local_work.table("truth_instances").num_rows == 15
    assert local_work.counts["annotations_quarantined"] == 1


def test_files_that_disagree_on_categories(root: Path, local_work: StageWork):
    data = json.loads((root / "all.json").read_text())
    data["categories"][0]["name"] = "wolf"
    write_json(root / "other.json", data)
    chosen = {**folder_config(root)["validation"], "annotations": "other.json"}
    with pytest.raises(DataError, match="category 9 is 'fox' and 'wolf'"):
        ground_truth.run({}, config(root, validation=chosen), local_work)


def test_class_folders_tell_the_truth_of_unlabeled_images(tmp_path: Path, new_work):
    """Sizes are those that ingest has read; what it could not read is nothing to be found."""
    make_crop_folders(tmp_path / "d")
    (tmp_path / "d/unlabeled/fox/9.png").write_bytes(b"no picture")
    data = crop_folders_config(tmp_path / "d", max_quarantined_share=0.2)
    before, work = new_work("ingest"), new_work("ground_truth")
    ingest.run({}, ingest.Config(**data), before)
    given = FakeArtifact({"image_index": before.table("image_index")})
    ground_truth.run(inputs_of(ground_truth, given), ground_truth.Config(**data), work)
    images = work.table("truth_images").read().to_pylist()
    size = {row["image_id"]: (row["height_px"], row["width_px"]) for row in images}
    assert len(images) == 22
    read = before.table("image_index").read().to_pylist()
    assert size.items() <= {
        (row["image_id"], (row["height_px"], row["width_px"])) for row in read
    }  # fmt: skip
    rows = work.table("truth_instances").read().to_pylist()
    names = {row["category_id"]: row["name"] for row in read_json(work, "categories")}
    assert Counter(names[row["category_id"]] for row in rows) == NUM_UNLABELED
    for row in rows:
        height, width = size[row["image_id"]]
        assert row["bbox_xyxy"] == [0, 0, width, height]
    known = {row["name"] for row in read_json(work, "categories") if row["known"]}
    assert known == {"cat", "dog"}
