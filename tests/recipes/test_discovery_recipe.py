"""Recipe discovery on small images that are objects, from files to accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from class_folders import (
    NUM_LABELED,
    NUM_UNLABELED,
    crop_folders_config,
    make_class_folders,
    make_crop_folders,
)
from coco_folder import write_json
from small_run import here

from gcdis_ray.run.pipeline import Pipeline, load_config
from gcdis_ray.store.artifacts import Artifact

STAGES = [
    "ingest",
    "ground_truth",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "curate",
    "evaluate",
]


def write_config(folder: Path, ingest: dict[str, Any]) -> Path:
    data = {
        "name": "crops",
        "recipe": "discovery",
        "storage": str(folder / "storage"),
        "compute": {"runtime": "local"},
        "stages": {
            "ingest": ingest,
            "propose": {"source": "image"},
            "embed": {"backbone": "wavelet", "input_px": 16},
            "count": {"num_novel": 2},
            "discover": {"method": "kmeans"},
            "evaluate": {"kmeans_on_pixels": False},
        },
    }
    path = folder / "crops.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def ran(config: Path) -> tuple[str, dict[str, Artifact]]:
    done = here(["run", str(config)])
    assert done.returncode == 0, done.stderr
    return done.stdout, Pipeline(load_config(config)).artifacts()


@pytest.fixture(scope="module")
def by_folders(tmp_path_factory) -> tuple[Path, str, dict[str, Artifact]]:
    folder = tmp_path_factory.mktemp("folders")
    make_crop_folders(folder / "data")
    config = write_config(folder, crop_folders_config(folder / "data"))
    return folder, *ran(config)


def test_class_folders_from_end_to_end(by_folders):
    folder, printed, artifacts = by_folders
    assert list(artifacts) == STAGES
    crops = artifacts["crop"].table("crops").read().to_pylist()
    assert len(crops) == sum(NUM_LABELED.values()) + sum(NUM_UNLABELED.values())
    assert all(row["window_xyxy"][:2] == [0, 0] for row in crops)
    assert all(row["window_xyxy"] == row["bbox_xyxy"] for row in crops)
    metrics = artifacts["evaluate"].json("metrics")
    assert metrics["discovery"]["accuracy"] == {"all": 1, "known": 1, "novel": 1}
    assert metrics["class_count"]["truth"] == 4
    assert metrics["coverage"]["crop_recall"] == 1
    assert metrics["coverage"]["labeled_crops_by_mask"]["image"] == 12
    assert metrics["detection"]["reason"] == "the recipe predicts nothing"
    assert metrics["proposals"]["reason"] == "every image is an object: none was looked for"
    named = [row["name"] for row in artifacts["discover"].json("discovered_classes")]
    assert sorted(named) == ["cat", "dog", "novel 1", "novel 2"]
    assert "clustering accuracy" in printed
    assert "AP" not in printed
    page = next((folder / "storage/reports").iterdir()).read_text()
    assert "Class by class" in page
    assert "mask AP" not in page
    status = json.loads(here(["status", str(folder / "crops.yaml"), "--json"]).stdout)
    assert status["metrics"]["discovery"]["accuracy"]["all"] == 1


def test_a_file_of_labels_says_the_same(by_folders, tmp_path: Path):
    """One annotation an image, of whatever box and mask; its truth is matched by image."""
    data = by_folders[0] / "data"
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("*.png"))
    classes = sorted(NUM_UNLABELED)
    content = {
        "images": [
            {"id": i, "file_name": n, "height": 24, "width": 30 + int(n.split("/")[-1][:-4])}
            for i, n in enumerate(names, 1)
        ],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": classes.index(n.split("/")[1]) + 1,
                "bbox": [1, 1, 2, 2] if i % 2 else [0, 0, 31, 24],
            }
            for i, n in enumerate(names, 1)
        ],
        "categories": [{"id": i, "name": c} for i, c in enumerate(classes, 1)],
    }  # fmt: skip
    labeled = [i for i, n in enumerate(names, 1) if n.startswith("labeled")]
    write_json(data / "instances.json", content)
    lists = {"labeled": labeled, "unlabeled": sorted(set(range(1, len(names) + 1)) - set(labeled))}
    write_json(data / "splits.json", {**lists, "known": [1, 2]})
    sets = {
        split: {
            "images": ".",
            "annotations": "instances.json",
            "image_ids": {"file": "splits.json", "key": split},
        }
        for split in lists
    }
    known = {"file": "splits.json", "key": "known"}
    ingest = crop_folders_config(data, **sets, known_classes=known)
    _, artifacts = ran(write_config(tmp_path, ingest))
    metrics = artifacts["evaluate"].json("metrics")
    assert metrics["discovery"]["accuracy"] == {"all": 1, "known": 1, "novel": 1}
    assert metrics["coverage"]["crop_recall"] == 1
    mine, other = (made["crop"].table("crops").read() for made in (artifacts, by_folders[2]))
    assert sorted(mine["jpeg"].to_pylist()) == sorted(other["jpeg"].to_pylist())


def test_without_truth_it_says_so(tmp_path: Path):
    make_class_folders(tmp_path / "data/labeled", NUM_LABELED)
    make_class_folders(tmp_path / "data/unlabeled", {"owl": 8})
    plain = crop_folders_config(tmp_path / "data", unlabeled={"images": "unlabeled"})
    printed, artifacts = ran(write_config(tmp_path, plain))
    metrics = artifacts["evaluate"].json("metrics")
    assert metrics["discovery"]["accuracy"]["all"] is None
    assert metrics["discovery"]["reason"] == "no ground truth for unlabeled images"
    assert metrics["class_count"]["truth"] is None
    assert "clustering accuracy    n/a: no ground truth for unlabeled images" in printed
    assert list(artifacts) == STAGES


def test_a_recipe_that_predicts_needs_validation_images(tmp_path: Path):
    make_crop_folders(tmp_path / "data")
    config = write_config(tmp_path, crop_folders_config(tmp_path / "data"))
    done = here(["plan", str(config), "--set", "recipe=kmeans"])
    assert done.returncode == 2
    assert "stages.ingest.validation: there are no validation images" in done.stderr
