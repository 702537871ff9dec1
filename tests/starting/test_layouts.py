"""A config for every layout: what it takes from the folder, and that it can be planned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official_files as official
import pytest
import yaml
from class_folders import make_class_folders, make_crop_folders
from coco_folder import image_bytes, make_coco_folder, square, write_json

from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.run.graph import make_config
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.starting.machine import Machine
from gcdis_ray.starting.start import start

CORES = Machine(cores=4, gpus=0)


def made(root: Path) -> dict[str, Any]:
    """The config of a folder; its data can be found, and every stage has a key."""
    data = yaml.safe_load(start(str(root), CORES).text)
    data["storage"] = str(root.parent / "storage")
    assert Pipeline(make_config(data, where="c.yaml")).nodes
    return data


def sizes(data: dict[str, Any]) -> dict[str, int]:
    config = make_config(data, where="c.yaml")
    return {split: len(images) for split, images in plan_data(config.stages.ingest).images.items()}


def images(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_bytes(seed))


def crops(root: Path, **lists: list[int]) -> None:
    """Images 1 to 12, one animal on each, all of it."""
    content = make_coco_folder(root)
    content["annotations"] = content["annotations"][::2]
    for annotation in content["annotations"]:
        annotation.update(bbox=[0, 0, 40, 30], segmentation=[])
    (root / "all.json").unlink()
    (root / "lists.json").unlink()
    write_json(root / "instances.json", content)
    write_json(root / "splits.json", lists)


def test_an_annotation_file_and_lists_of_crops(tmp_path: Path):
    crops(
        tmp_path / "My data!", labeled=[1, 2, 3, 4], unlabeled=[5, 6, 7], validation=[8], known=[1]
    )
    data = made(tmp_path / "My data!")
    assert (data["name"], data["recipe"]) == ("My_data", "discovery")
    assert sizes(data) == {"labeled": 4, "unlabeled": 3}
    stages = data["stages"]
    assert stages["propose"] == {"source": "image"}
    assert stages["ingest"]["known_classes"] == {"file": "splits.json", "key": "known"}
    assert stages["ingest"]["root"] == str(tmp_path / "My data!")


def test_known_classes_that_no_labeled_image_shows_are_left_out(tmp_path: Path):
    crops(tmp_path / "d", labeled=[1, 3], unlabeled=[2, 4], known=[1, 2])
    assert made(tmp_path / "d")["stages"]["ingest"]["known_classes"] == ["dog"]
    said = start(str(tmp_path / "d"), CORES)
    assert "known classes that no labeled image shows: 'cat'" in said.found
    crops(tmp_path / "e", labeled=[1, 3], unlabeled=[2, 4], known=[7])
    with pytest.raises(DataError, match="no labeled image shows an object of a known class"):
        start(str(tmp_path / "e"), CORES)


def test_training_images_are_halved(tmp_path: Path):
    """Where one division leaves a known class without an object, another one is taken."""
    content = make_coco_folder(tmp_path / "d", num_images=24)
    (tmp_path / "d/all.json").rename(tmp_path / "d/instances.json")
    ids = [image["id"] for image in content["images"]]
    lists = {"train": ids[:16], "val": ids[16:], "known_animals": [1, 2], "novel": [7, 9]}
    write_json(tmp_path / "d/splits.json", lists)
    (tmp_path / "d/lists.json").unlink()
    data = made(tmp_path / "d")
    found = sizes(data)
    assert found["labeled"] + found["unlabeled"] == 16
    assert found["validation"] == 8
    assert data["recipe"] == "gcdis"
    assert data["stages"]["propose"]["source"] == "model"
    assert data["stages"]["ingest"]["known_classes"] == {
        "file": "splits.json", "key": "known_animals",
    }  # fmt: skip


def coco_2017(root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    for split, ids in (("train", range(1, 13)), ("val", range(21, 25))):
        official.coco(root / f"annotations/instances_{split}2017.json", list(ids))
        images(root, [f"{split}2017/{i:012d}.jpg" for i in ids])
    captions = json.loads((root / "annotations/instances_train2017.json").read_text())
    del captions["categories"]
    write_json(root / "annotations/captions_train2017.json", captions)


def lvis(root: Path) -> None:
    root.mkdir()
    official.lvis(root / "lvis_v1_train.json", list(range(1, 13)))
    official.lvis(root / "lvis_v1_val.json", list(range(21, 25)), "val2017")
    images(root, [f"train2017/{i:012d}.jpg" for i in range(1, 13)])
    images(root, [f"val2017/{i:012d}.jpg" for i in range(21, 25)])


def voc(root: Path) -> None:
    names = [f"2007_{i:06d}" for i in range(1, 17)]
    official.voc(root / "VOC2012", names)
    lists = root / "VOC2012/ImageSets/Segmentation"
    for path in lists.iterdir():
        path.unlink()
    (lists / "train.txt").write_text("\n".join(names[:12]))
    (lists / "val.txt").write_text("\n".join(names[12:]))


def one_file(root: Path) -> None:
    make_coco_folder(root, num_images=16)
    (root / "lists.json").unlink()


def three_files(root: Path) -> None:
    content = make_coco_folder(root, num_images=16)
    (root / "all.json").unlink()
    (root / "lists.json").unlink()
    (root / "annotations").mkdir()
    for split, part in (("labeled", slice(6)), ("unlabeled", slice(6, 12)), ("val", slice(12, 16))):
        chosen = content["images"][part]
        for image in chosen:
            path = root / "images" / image["file_name"]
            images(root / split, [])
            (root / f"images/{split}").mkdir(exist_ok=True)
            path.rename(root / f"images/{split}" / image["file_name"])
        ids = {image["id"] for image in chosen}
        kept = [a for a in content["annotations"] if a["image_id"] in ids]
        told = {**content, "images": chosen, "annotations": kept}
        write_json(root / f"annotations/{split}.json", told)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (coco_2017, {"annotations": "annotations/instances_train2017.json", "images": "train2017"}),
        (lvis, {"annotations": "lvis_v1_train.json", "images": "."}),
        (voc, {"images": "VOC2012/JPEGImages"}),
        (one_file, {"annotations": "all.json", "images": "images"}),
        (three_files, {"annotations": "annotations/labeled.json", "images": "images/labeled"}),
    ],
)
def test_annotation_files(tmp_path: Path, make: Callable[[Path], None], expected: dict[str, str]):
    make(tmp_path / "d")
    data = made(tmp_path / "d")
    assert data["recipe"] == "gcdis"
    labeled = data["stages"]["ingest"]["labeled"]
    assert labeled.items() >= expected.items()
    found = sizes(data)
    assert set(found) == {"labeled", "unlabeled", "validation"}
    assert sum(found.values()) == 16
    if make is not one_file:
        assert found["validation"] == 4


def test_an_unlabeled_folder_beside_an_annotation_file(tmp_path: Path):
    make_coco_folder(tmp_path / "d")
    (tmp_path / "d/all.json").rename(tmp_path / "d/labeled.json")
    images(tmp_path / "d", [f"unlabeled/{i}.jpg" for i in range(5)])
    data = made(tmp_path / "d")
    assert data["stages"]["ingest"]["unlabeled"] == {"images": "unlabeled"}
    found = sizes(data)
    assert found["unlabeled"] == 5
    assert found["labeled"] + found["validation"] == 12


@pytest.mark.parametrize("entries", [12, 2])
def test_masks_of_unlabeled_images(tmp_path: Path, entries: int):
    """They are taken if they are of most of these images, not of a few."""
    one_file(tmp_path / "d")
    masks = [
        {"image_id": i, "segmentation": square(3, 5, 10), "score": 0.5}
        for i in range(1, 17 if entries > 2 else 3)
    ]
    write_json(tmp_path / "d/masks.json", masks)
    propose = made(tmp_path / "d")["stages"]["propose"]
    assert propose["source"] == ("external" if entries > 2 else "model")
    if entries > 2:
        assert propose["external"] == {"results": str(tmp_path / "d/masks.json")}


def test_boxes_are_taken_for_masks_where_there_are_none(tmp_path: Path):
    one_file(tmp_path / "d")
    content = json.loads((tmp_path / "d/all.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    write_json(tmp_path / "d/all.json", content)
    assert made(tmp_path / "d")["stages"]["propose"]["box_masks"] == "rectangle"


def test_class_folders(tmp_path: Path):
    make_crop_folders(tmp_path / "d")
    data = made(tmp_path / "d")
    assert data["recipe"] == "discovery"
    ingest = data["stages"]["ingest"]
    assert ingest["labeled"] == {"images": "labeled", "format": "class_folders"}
    assert ingest["unlabeled"] == {"images": "unlabeled", "format": "class_folders"}
    assert ingest["known_classes"] == "all"
    assert sizes(data) == {"labeled": 12, "unlabeled": 22}


def test_class_folders_beside_an_unlabeled_one(tmp_path: Path):
    """Folders of it that are named by no labeled class are no truth."""
    make_class_folders(tmp_path / "d/images", {"cat": 3, "dog": 2})
    make_class_folders(tmp_path / "d/images/unlabelled", {"fox": 4})
    ingest = made(tmp_path / "d")["stages"]["ingest"]
    assert ingest["labeled"] == {"images": "images", "format": "class_folders"}
    assert ingest["unlabeled"] == {"images": "images/unlabelled"}
    assert ingest["known_classes"] == ["cat", "dog"]


def test_a_folder_that_fits_nothing(tmp_path: Path):
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="no such folder"):
        start(str(tmp_path / "nowhere"), CORES)
    with pytest.raises(DataError, match=r"no image in it \(JPEG, PNG or WebP\)\n"):
        start(str(tmp_path / "d"), CORES)
    (tmp_path / "d/1.tif").write_bytes(b"II*\0 and more")
    with pytest.raises(DataError, match=r"WebP\), but 1 other file \(1 .tif\), such as 1.tif"):
        start(str(tmp_path / "d"), CORES)
    images(tmp_path / "d", ["1.jpg", "2.jpg"])
    with pytest.raises(DataError, match="no annotation file"):
        start(str(tmp_path / "d"), CORES)
    (tmp_path / "d/instances.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"instances\.json.*truncated"):
        start(str(tmp_path / "d"), CORES)
    crops(tmp_path / "e", labeled=[1], unlabeled=[2], known=[2])
    (tmp_path / "e/images").rename(tmp_path / "elsewhere")
    images(tmp_path / "e", ["other/100.jpg"])
    with pytest.raises(DataError, match=r"lists images such as 1\.jpg, 2\.jpg, and no such file"):
        start(str(tmp_path / "e"), CORES)
