"""Exports as the real packages read them, each in an environment of its own; and back as labels of
a next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import ROOT, here, open_pipeline

from gcdis_ray.exporting.export import COCO_FILE
from gcdis_ray.masks.coco_rle import decode, iou_matrix, rle_from_polygons
from gcdis_ray.run.opened import open_run

READERS = Path(__file__).parent / "readers"
Reader = Callable[..., Any]  # reads a folder by a script, and gives what that prints


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, installed for these tests where there is none, as ``make setup`` does."""
    if found := shutil.which("uv", path=f"{os.environ['PATH']}:{ROOT / '.venv-uv' / 'bin'}"):
        return found
    folder = tmp_path_factory.mktemp("uv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    _installed([str(folder / "bin" / "pip"), "install", "--quiet", "uv"])
    return str(folder / "bin" / "uv")


def _installed(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot be installed: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def environment(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reader]:
    def make(*packages: str, beside_ours: bool = False) -> Reader:
        """Args: beside_ours: without what they need, which our own environment has."""
        folder = tmp_path_factory.mktemp("environment")
        python = str(folder / "bin" / "python")
        _installed([uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        alone = ["--no-deps"] if beside_ours else []
        _installed([uv, "pip", "install", "--quiet", *alone, "--python", python, *packages])
        (site,) = (folder / "lib").glob("python*/site-packages")
        ours = {"PYTHONPATH": str(site)} if beside_ours else {"PYTHONPATH": ""}
        home = {"HOME": str(folder), "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true"}

        def read(script: str, *words: object) -> Any:
            done = subprocess.run(
                [sys.executable if beside_ours else python, READERS / script, *map(str, words)],
                capture_output=True, text=True, env=os.environ | ours | home, cwd=folder,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout.splitlines()[-1])

        return read

    return make


@pytest.fixture(scope="module")
def exported(small_run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def export(*words: str) -> Path:
        out = tmp_path_factory.mktemp("exports") / "o"
        storage = open_pipeline(small_run.overrides).config.storage
        done = here(["export", storage, "--out", str(out), *words])
        assert done.returncode == 0, done.stderr
        return out

    return export


@pytest.fixture(scope="module")
def truth(small_run) -> list[dict[str, Any]]:
    """Pseudo-labels as tables of the run have them, in order."""
    made = open_pipeline(small_run.overrides).artifacts()
    proposals = made["propose"].table("proposals").read().to_pylist()
    proposal_of = {row["proposal_id"]: row for row in proposals}
    names = {row["class_index"]: row["name"] for row in made["discover"].json("discovered_classes")}
    embeddings = made["discover"].table("assignments").read(["crop_index", "embedding"])
    embedding_of = {row["crop_index"]: row["embedding"] for row in embeddings.to_pylist()}
    files = made["ingest"].table("image_index").read(["image_id", "uri"]).to_pylist()
    file_of = {row["image_id"]: Path(row["uri"]).name for row in files}
    return [
        {
            **proposal_of[row["source_id"]],
            **row,
            "label": names[row["cluster_id"]],
            "embedding": embedding_of[row["crop_index"]],
            "image": file_of[row["image_id"]],
        }
        for row in made["label"].table("pseudo_labels").read().to_pylist()
    ]


def iou(row: dict[str, Any], polygons: Sequence[Sequence[float]]) -> float:
    size = row["height_px"], row["width_px"]
    return iou_matrix([rle_from_polygons(polygons, *size)], [row["mask_rle"]], *size)[0, 0]


def as_labels(root: Path, images: str, annotations: str, tmp_path: Path) -> list[dict[str, Any]]:
    """What a next run takes of a file as labels: rows of table ``instances`` with
    ``label``, the name of the class. All of it is accepted, or the test fails."""
    data = json.loads((root / annotations).read_text())
    used = {annotation["category_id"] for annotation in data["annotations"]}
    names = {row["id"]: row["name"] for row in data["categories"]}
    (root / "others").mkdir()
    shutil.copy(next(iter((root / images).rglob("*.jpg"))), root / "others" / "other.jpg")
    config = {
        "name": "next",
        "storage": str(tmp_path / "next"),
        "recipe": "discovery",
        "compute": {"runtime": "local"},
        "stages": {
            "ingest": {
                "root": str(root),
                "labeled": {"images": images, "annotations": annotations},
                "unlabeled": {"images": "others"},
                "known_classes": sorted(names[number] for number in used),
                "max_quarantined_share": 0,
            }
        },
    }
    path = tmp_path / "next.yaml"
    path.write_text(json.dumps(config))
    checked = here(["data", "check", str(path), "--json"])
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    labeled = told["sets"]["labeled"]
    assert told["problems"] == []
    assert labeled["not_usable"] == 0
    assert labeled["masks"] == labeled["annotations"] == len(data["annotations"])
    done = here(["run", str(path), "--until", "ingest"])
    assert done.returncode == 0, done.stderr
    found = open_run(str(path)).inputs("instances", "classes")
    name_of = {row["class_index"]: row["name"] for row in found.json("classes")}
    rows = found.table("instances").read().to_pylist()
    return [{**row, "label": name_of[row["class_index"]]} for row in rows]


def labels_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(row["label"] for row in rows)


def test_a_corrected_coco_file_is_labels_of_a_next_run(exported, truth, tmp_path: Path):
    """A class gets another name, a polygon moves, an object goes."""
    out = exported("--format", "coco", "--min-iou", "1")
    data = json.loads((out / COCO_FILE).read_text())
    changed = data["annotations"][0]
    gone = data["annotations"].pop()
    (category,) = (c for c in data["categories"] if c["id"] == changed["category_id"])
    before, category["name"] = category["name"], "a letter"
    changed["segmentation"] = [[10, 20, 40, 20, 40, 50, 10, 50]]
    changed["bbox"], changed["area"] = [10, 20, 30, 30], 900
    (out / COCO_FILE).write_text(json.dumps(data))
    rows = as_labels(out, "images", COCO_FILE, tmp_path)
    expected = [r["label"] if r["label"] != before else "a letter" for r in truth[:-1]]
    assert labels_of(rows) == sorted(expected)
    row_of = {row["instance_id"]: row for row in rows}
    assert gone["id"] not in row_of
    moved = row_of.pop(changed["id"])
    mask = decode(moved["mask_rle"], moved["height_px"], moved["width_px"])
    assert mask[20:50, 10:40].all()
    assert mask.sum() == 900
    masks = [row_of[number]["mask_rle"] for number in sorted(row_of)]
    assert masks == [row["mask_rle"] for row in truth[1:-1]]  # by exact polygons


@pytest.fixture(scope="module")
def datumaro(environment: Callable[..., Reader]) -> Reader:
    return environment("datumaro")


@pytest.mark.thorough
def test_datumaro_reads_coco_and_cvat(datumaro: Reader, exported, truth, tmp_path: Path):
    for form in ("coco", "cvat"):
        out = exported("--format", form)
        found = datumaro("with_datumaro.py", out, tmp_path / form)
        objects: dict[int, list[dict[str, Any]]] = {}
        for each in found:
            objects.setdefault(each["object"], []).append(each)
        for number, row in enumerate(truth, start=1):
            parts = objects.pop(number)
            assert {part["label"] for part in parts} == {row["label"]}
            assert {part["image"] for part in parts} == {Path(row["image"]).stem}
            assert np.float32(parts[0]["score"]) == np.float32(row["probability"])
            assert iou(row, [part["polygon"] for part in parts]) >= 0.95
        assert not objects
    again = tmp_path / "cvat"  # as CVAT, which writes by datumaro, exports a task
    rows = as_labels(again, "images/default", COCO_FILE, tmp_path)
    assert labels_of(rows) == labels_of(truth)


@pytest.mark.thorough
def test_datumaro_reads_run_lengths(datumaro: Reader, exported, truth, tmp_path: Path):
    out = exported("--format", "cvat", "--rle")
    objects = datumaro("with_datumaro.py", out, tmp_path / "o")
    found = {each["object"]: each for each in objects}
    for number, row in enumerate(truth, start=1):
        mask = decode(row["mask_rle"], row["height_px"], row["width_px"])
        assert found[number]["mask"] == mask.astype(int).ravel().tolist()


@pytest.mark.thorough
def test_label_studio_takes_tasks_and_gives_coco(environment, exported, truth, tmp_path: Path):
    out = exported("--format", "label-studio", "--with-labels")
    found = environment("label-studio-sdk")("with_label_studio.py", out)
    assert found["predicted"] == [row["label"] for row in truth]
    rows = as_labels(out, ".", "result.json", tmp_path)
    assert len(found["given"]) > 0
    assert labels_of(rows) == sorted(found["predicted"] + found["given"])


@pytest.mark.thorough
def test_fiftyone_reads_masks_and_embeddings(environment, exported, truth):
    """Its importer, and its database where that starts: a program of its own, to be fetched."""
    told = environment("fiftyone", "pycocotools")(
        "with_fiftyone.py", exported("--format", "fiftyone")
    )
    found = told["objects"]
    assert told["in_database"] in (None, len(truth))
    found_of = {each["crop_index"]: each for each in found}
    assert len(found_of) == len(found) == len(truth)
    for row in truth:
        each, (height, width) = found_of[row["crop_index"]], (row["height_px"], row["width_px"])
        assert each["size"] == [height, width]
        assert each["label"] == row["label"]
        assert np.float32(each["score"]) == np.float32(row["probability"])
        assert np.float32(each["reliability"]) == np.float32(row["reliability"])
        assert np.array_equal(np.float32(each["embedding"]), np.float32(row["embedding"]))
        x, y, w, h = (round(s * side) for s, side in zip(
            each["box"], (width, height, width, height), strict=True))  # fmt: skip
        mask = decode(row["mask_rle"], height, width)
        assert mask.sum() == np.sum(each["mask"])
        assert np.array_equal(mask[y : y + h, x : x + w], np.array(each["mask"], bool))


@pytest.mark.thorough
def test_ultralytics_reads_yolo(environment, exported, truth):
    found = environment("ultralytics", beside_ours=True)(
        "with_ultralytics.py", exported("--format", "yolo")
    )
    by_image: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        by_image.setdefault(each["image"], []).append(each)
    for row in truth:
        each = by_image[row["image"]].pop(0)
        assert each["label"] == row["label"]
        points = np.array(each["polygon"]) * (row["width_px"], row["height_px"])
        assert iou(row, [points.ravel().tolist()]) >= 0.94  # it reads float32
    assert not any(by_image.values())
