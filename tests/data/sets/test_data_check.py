"""``gcdis data check``: counts, comparison with published ones, problems and exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import official_files as official
import pytest
import yaml
from coco_folder import image_bytes, write_json
from small_run import ROOT

from gcdis_ray.cli import main
from gcdis_ray.data.sets import published
from gcdis_ray.data.sets.published import Count


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    """COCO and LVIS on the same eight images, validation on two more."""
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    official.coco(root / "annotations/instances_train2017.json", list(range(1, 9)))
    official.lvis(root / "annotations/lvis_v1_train.json", list(range(1, 9)))
    official.lvis(root / "annotations/lvis_v1_val.json", [11, 12], "val2017")
    official.coco_to_synset(root / "annotations/coco_to_synset.json")
    for i in [*range(1, 9), 11, 12]:
        path = root / ("val2017" if i > 10 else "train2017") / f"{i:012d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image_bytes(i))
    return tmp_path


def config_of(setting: Path, name: str = "mine", **ingest: Any) -> Path:
    half = {
        "part_by": "rank",
        "image_ids": {"file": "annotations/lvis_v1_train.json", "key": "images.id"},
    }
    stages = {
        "ingest": {
            "root": str(setting / "data"),
            "label_space": {"files": ["annotations/lvis_v1_val.json"]},
            "known_classes": "all",
            "labeled": {
                "images": "train2017",
                "annotations": "annotations/instances_train2017.json",
                "relabel": {"file": "annotations/coco_to_synset.json"},
                "part": [0, 0.5],
                **half,
            },
            "unlabeled": {
                "images": ".",
                "annotations": "annotations/lvis_v1_train.json",
                "part": [0.5, 1],
                "part_by": "rank",
            },
            "validation": {"images": ".", "annotations": "annotations/lvis_v1_val.json"},
            **ingest,
        },
        "propose": {"source": "model", "detector": {"backbone": "small"}},
    }
    path = setting / "config.yaml"
    path.write_text(yaml.safe_dump({"name": name, "recipe": "gcdis", "stages": stages}))
    return path


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch):
    """Publish other counts than the real ones."""

    def publish(files: dict[str, dict[str, Count]], settings: dict[str, dict[str, Count]]) -> None:
        monkeypatch.setattr("gcdis_ray.data.sets.data_check.FILES", files)
        monkeypatch.setattr("gcdis_ray.data.sets.data_check.SETTINGS", settings)

    publish({}, {})
    return publish


def checked(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    status = main(["data", "check", str(path), *more])
    return status, *capsys.readouterr()


def test_counts(setting: Path, counts, capsys: pytest.CaptureFixture[str]):
    status, out, err = checked(config_of(setting), capsys, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert (found["num_known"], found["num_classes"]) == (2, 4)
    labeled, unlabeled, validation = found["sets"].values()
    assert labeled["images"] == unlabeled["images"] == 4
    assert labeled["annotations"] == labeled["masks"] == 8
    assert labeled["passed_over"] == {"of a class that is not in label_space": 8}
    assert (labeled["known_classes"], labeled["novel_classes"]) == (2, 0)
    assert (unlabeled["known_classes"], unlabeled["novel_classes"]) == (1, 1)
    assert validation["annotations"] == 4
    assert not any(s["missing"] or s["not_usable"] for s in found["sets"].values())
    (train,) = (f for f in found["files"] if f["name"] == "annotations/lvis_v1_train.json")
    data = (setting / "data/annotations/lvis_v1_train.json").read_bytes()
    assert train["sha256"] == hashlib.sha256(data).hexdigest()
    assert train["counts"] == {"images": 8, "annotations": 16, "categories": 4}


def test_published_counts_stand_beside(setting: Path, counts, capsys):
    files = {"lvis_v1_train.json": {"images": Count(8, "here"), "annotations": Count(99, "there")}}
    counts(files, {"mine": {"labeled.images": Count(5, "half", tolerance=1)}})
    status, out, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "images         8   published 8 (here)" in out
    assert "images         4   published 5 ± 1 (half)" in out
    assert err.count("gcdis:") == 1
    assert "annotations/lvis_v1_train.json: annotations: 16, published 99 (there)" in err
    # a partial set may differ, and so may a count nobody is sure of
    unlabeled = {"images": ".", "annotations": "annotations/lvis_v1_train.json", "part_by": "rank"}
    part = {**unlabeled, "part": [0.5, 1], "partial": True}
    status, out, _ = checked(config_of(setting, unlabeled=part), capsys)
    assert status == 0
    assert "note  annotations/lvis_v1_train.json: annotations: 16, published 99" in out
    counts({"lvis_v1_train.json": {"images": Count(9, "memory", firm=False)}}, {})
    status, out, _ = checked(config_of(setting), capsys)
    assert status == 0
    assert "note  annotations/lvis_v1_train.json: images: 8, published 9 (memory; not verif" in out
    assert "note  annotations/coco_to_synset.json: another file than published" in out


def test_a_set_of_ones_own_under_an_official_name(setting: Path, counts, capsys):
    counts({"lvis_v1_train.json": {"images": Count(100_170, "there")}}, {"theirs": {}})
    status, out, _ = checked(config_of(setting), capsys)
    assert status == 0
    assert "note  annotations/lvis_v1_train.json: images: 8, published 100,170 (there)" in out


def test_missing_images(setting: Path, counts, capsys: pytest.CaptureFixture[str]):
    for path in (setting / "data/val2017").iterdir():
        path.unlink()
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert (
        "validation.images: 2 of 2 images are missing: folder val2017 (2 images)\n  next: fetch"
        in err
    )
    assert "Traceback" not in err


def test_partial_sets_leave_out_what_is_missing(setting: Path, counts, capsys):
    (setting / "data/val2017/000000000011.jpg").unlink()
    validation = {"images": ".", "annotations": "annotations/lvis_v1_val.json"}
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "1 of 2 images is missing: 1 file such as val2017/000000000011.jpg" in err
    path = config_of(setting, validation={**validation, "partial": True})
    status, out, err = checked(path, capsys, "--json")
    assert status == 0, err
    found = json.loads(out)["sets"]["validation"]
    assert (found["images"], found["left_out"], found["annotations"]) == (1, 1, 2)


def test_annotations_that_cannot_be_used(setting: Path, counts, capsys):
    path = setting / "data/annotations/lvis_v1_val.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["bbox"] = [3, 5, -6, 6]
    write_json(path, data)
    status, out, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "such as val2017/000000000011.jpg: annotation 110: box" in out
    assert "validation.annotations: 1 of 4 annotations cannot be used" in err
    assert "\n  next: mend them, or raise stages.ingest.max_quarantined_share" in err
    assert checked(config_of(setting, max_quarantined_share=0.5), capsys)[0] == 0


def test_known_classes_without_objects(setting: Path, counts, capsys):
    data = official.coco(setting / "data/annotations/instances_train2017.json", list(range(1, 9)))
    data["annotations"] = [a for a in data["annotations"] if a["category_id"] == 1]
    write_json(setting / "data/annotations/instances_train2017.json", data)
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "known_classes: 1 of 2 known classes has no object on the labeled images: 'cat'" in err
    assert "next: take them out, or choose labeled images" in err


def test_ids_that_occur_twice(setting: Path, counts, capsys):
    path = setting / "data/annotations/lvis_v1_val.json"
    data = json.loads(path.read_text())
    data["annotations"][3]["id"] = data["annotations"][0]["id"]
    write_json(path, data)
    status, out, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "same id        1 have the id of another one" in out
    assert "1 of 4 annotations cannot be used, such as annotation 110: its id occurs twice" in err
    config = config_of(setting, max_quarantined_share=0.5)
    status, out, _ = checked(config, capsys, "--json")
    assert status == 0
    assert json.loads(out)["sets"]["validation"]["same_id"] == 1


def test_a_folder_in_the_place_of_a_file(setting: Path, counts, capsys):
    (setting / "data/annotations/lvis_v1_val.json").unlink()
    (setting / "data/annotations/lvis_v1_val.json").mkdir()
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "lvis_v1_val.json: is a folder, not a file" in err


def test_lists_of_lvis_that_contradict_the_file(setting: Path, counts, capsys):
    path = setting / "data/annotations/lvis_v1_val.json"
    data = json.loads(path.read_text())
    data["images"][1]["neg_category_ids"] = [99]
    write_json(path, data)
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "images[1]: neg_category_ids holds 99, which is no category of the file" in err
    del data["images"][1]["neg_category_ids"]
    write_json(path, data)
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "images[1]: image 12 lacks neg_category_ids or" in err


def test_mistakes_end_as_in_a_run(setting: Path, counts, capsys):
    (setting / "data/annotations/lvis_v1_val.json").unlink()
    status, _, err = checked(config_of(setting), capsys)
    assert status == 2
    assert "lvis_v1_val.json: no such file" in err
    assert "Traceback" not in err


def test_progress_goes_to_standard_error(setting: Path, counts, capsys):
    _, out, err = checked(config_of(setting), capsys)
    assert "annotations/" in err
    assert "file  annotations/lvis_v1_val.json" in out


def test_the_documented_counts_are_those_compared_with():
    text = (ROOT / "docs/datasets.md").read_text()
    for name, counts in published.FILES.items():
        for count in counts.values() if name != "image_data.json" else ():
            assert f"{count.value:,}{'' if count.firm else ' (not verified)'}" in text, (
                name,
                count,
            )


def test_every_published_count_names_its_source():
    for group in (*published.FILES.values(), *published.SETTINGS.values()):
        for count in group.values():
            assert count.value > 0
            assert count.source
