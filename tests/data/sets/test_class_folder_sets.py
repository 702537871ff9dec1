"""Sets of images in class folders: what each takes, and what each tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from class_folders import crop_folders_config, make_class_folders, make_crop_folders
from pydantic import ValidationError

from gcdis_ray.data.sets.data_check import check_data
from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.splits import DataPlan, plan_data
from gcdis_ray.errors import DataError

FOLDERS = {"images": "images", "format": "class_folders"}


def config(root: Path, /, **changes) -> DataConfig:
    data = crop_folders_config(root, **changes)
    del data["images_per_shard"]
    return DataConfig(**data)


def names(plan: DataPlan, split: str) -> set[str]:
    return {image.uri for image in plan.images[split]}


def test_by_folder(tmp_path: Path):
    make_crop_folders(tmp_path)
    plan = plan_data(config(tmp_path))
    assert list(plan.sets) == ["labeled", "unlabeled"]
    assert {c.name for c in plan.known} == {"cat", "dog"}
    assert {name: len(images) for name, images in plan.images.items()} == {
        "labeled": 12, "unlabeled": 22,
    }  # fmt: skip
    rows = [row for rows in plan.sets["labeled"].selection(None).checked() for row in rows]
    assert len(rows) == 12
    assert not any(row[-1] for row in rows)


@pytest.mark.parametrize("known", [["cat", "dog"], ["dog"]])
def test_labeled_are_the_images_of_known_classes(tmp_path: Path, known: list[str]):
    """So an unlabeled folder may lie among those of classes."""
    make_class_folders(tmp_path, {"cat": 3, "dog": 2, "fox": 2})
    (tmp_path / "fox").rename(tmp_path / "unlabeled")
    chosen = {"images": ".", "format": "class_folders"}
    plan = plan_data(config(tmp_path, labeled=chosen, unlabeled={"images": "unlabeled"},
                            known_classes=known))  # fmt: skip
    assert {name.partition("/")[0] for name in names(plan, "labeled")} == set(known)
    assert names(plan, "unlabeled") == {"unlabeled/1.png", "unlabeled/2.png"}
    everything = config(tmp_path, labeled=chosen, unlabeled={"images": "unlabeled"})
    with pytest.raises(DataError, match="2 images occur twice"):
        plan_data(everything)
    with pytest.raises(DataError, match="did you mean 'cat'"):
        plan_data(config(tmp_path, labeled=chosen, unlabeled={"images": "unlabeled"},
                         known_classes=["cta"]))  # fmt: skip


@pytest.mark.parametrize("by", ["hash", "rank"])
def test_parts_of_one_folder(tmp_path: Path, by: str):
    """Images are numbered alike in all classes, and parts do not go by the number alone."""
    make_class_folders(tmp_path / "images", {"cat": 8, "dog": 8, "owl": 8})
    labeled, unlabeled = ({**FOLDERS, "part": part, "part_by": by} for part in ([0, 0.5], [0.5, 1]))
    plan = plan_data(config(tmp_path, labeled=labeled, unlabeled=unlabeled, known_classes=["cat"]))
    assert {name.split("/")[1] for name in names(plan, "labeled")} == {"cat"}
    assert not names(plan, "labeled") & names(plan, "unlabeled")
    cats = {n for n in names(plan, "unlabeled") if "/cat/" in n} | names(plan, "labeled")
    assert len(cats) == 8
    numbers = [
        {n.rpartition("/")[2] for n in names(plan, "unlabeled") if f"/{c}/" in n}
        for c in ("cat", "dog", "owl")
    ]
    assert numbers[0] != numbers[1]
    assert numbers[1] != numbers[2]


def test_what_is_refused(tmp_path: Path):
    make_crop_folders(tmp_path)
    with pytest.raises(ValidationError, match="class_folders has no annotations"):
        config(tmp_path, labeled={**FOLDERS, "annotations": "all.json"})
    with pytest.raises(ValidationError, match="format: class_folders"):
        config(tmp_path, labeled={"images": "labeled"})
    with pytest.raises(ValidationError, match="image_ids needs annotations"):
        config(tmp_path, unlabeled={**FOLDERS, "image_ids": {"file": "a.json", "key": "b"}})
    with pytest.raises(DataError, match="no such folder"):
        plan_data(config(tmp_path, labeled=FOLDERS))


def test_counts(tmp_path: Path):
    make_crop_folders(tmp_path)
    report = check_data(config(tmp_path), "c")
    assert report.problems == []
    found = report.sets["unlabeled"]
    assert (found.images, found.annotations, found.whole_images, found.boxes_only) == (
        22,
        22,
        22,
        0,
    )
    assert (found.known_classes, found.novel_classes) == (2, 2)
    assert any("(22 whole images)" in line for line in report.lines())
