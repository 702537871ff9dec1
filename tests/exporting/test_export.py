"""What ``gcdis export`` writes, of a run of the quickstart in small."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from small_run import environment, here, open_pipeline, program

from gcdis_ray.curating.acts import Name, Reject
from gcdis_ray.curating.log import append
from gcdis_ray.exporting.export import COCO_FILE
from gcdis_ray.masks.coco_rle import area, bbox_xyxy, decode, iou_matrix, rle_from_polygons
from gcdis_ray.run.opened import open_run
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.store.storage import open_storage


@pytest.fixture(scope="module")
def run(small_run) -> Pipeline:
    return open_pipeline(small_run.overrides)


@pytest.fixture(scope="module")
def root(small_run) -> Path:
    """The data folder."""
    given = next(o for o in small_run.overrides if o.startswith("stages.ingest.root="))
    return Path(given.partition("=")[2])


def export(run: Pipeline, out: Path, *words: str) -> dict[str, Any]:
    done = here(["export", run.config.storage, "--out", str(out), "--json", *words])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(run: str, out: Path | str, *words: str) -> str:
    done = here(["export", run, "--out", str(out), *words])
    assert done.returncode == 2
    return done.stderr


def pseudo_labels(run: Pipeline) -> list[dict[str, Any]]:
    """Rows with the masks of their proposals, and the names of their classes."""
    made = run.artifacts()
    proposals = made["propose"].table("proposals").read().to_pylist()
    proposal_of = {row["proposal_id"]: row for row in proposals}
    names = {row["class_index"]: row["name"] for row in made["discover"].json("discovered_classes")}
    rows = made["label"].table("pseudo_labels").read().to_pylist()
    return [
        {**proposal_of[row["source_id"]], **row, "name": names[row["cluster_id"]]} for row in rows
    ]


def size_of(path: Path) -> tuple[int, int]:
    """(height, width)"""
    with Image.open(path) as image:
        return image.height, image.width


def read(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


def test_coco_has_every_pseudo_label_with_its_mask(run: Pipeline, tmp_path: Path):
    told = export(run, tmp_path / "o", "--format", "coco", "--rle")
    data, want = read(tmp_path / "o", COCO_FILE), pseudo_labels(run)
    coco = COCO(str(tmp_path / "o" / COCO_FILE))
    name_of = {row["id"]: row["name"] for row in data["categories"]}
    assert min(name_of) == 1
    assert [a["id"] for a in data["annotations"]] == list(range(1, len(want) + 1))
    assert told["objects"] == len(want)
    found = {a["crop_index"]: a for a in data["annotations"]}
    for row in want:
        annotation = found[row["crop_index"]]
        size = [row["height_px"], row["width_px"]]
        assert annotation["segmentation"] == {"size": size, "counts": row["mask_rle"]}
        mask = coco.annToMask(coco.loadAnns(annotation["id"])[0])
        assert np.array_equal(mask, decode(row["mask_rle"], *size))
        assert name_of[annotation["category_id"]] == row["name"]
        assert annotation["image_id"] == row["image_id"]
        assert np.float32(annotation["score"]) == np.float32(row["probability"])
        assert np.float32(annotation["reliability"]) == np.float32(row["reliability"])
        x0, y0, x1, y1 = bbox_xyxy(row["mask_rle"], *size)
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == area(row["mask_rle"], *size)
    for image in data["images"]:
        size = size_of(tmp_path / "o" / "images" / image["file_name"])
        assert size == (image["height"], image["width"])


def test_polygons_keep_what_is_asked_of_a_mask(run: Pipeline, tmp_path: Path):
    told = export(run, tmp_path / "o", "--format", "coco", "--min-iou", "0.9", "--images", "none")
    rows = {row["crop_index"]: row for row in pseudo_labels(run)}
    overlaps = []
    for annotation in read(tmp_path / "o", COCO_FILE)["annotations"]:
        row = rows[annotation["crop_index"]]
        size = row["height_px"], row["width_px"]
        drawn = rle_from_polygons(annotation["segmentation"], *size)
        overlaps.append(iou_matrix([drawn], [row["mask_rle"]], *size)[0, 0])
    assert min(overlaps) >= 0.9
    assert told["polygons"]["mean_iou"] == pytest.approx(np.mean(overlaps), abs=1e-4)
    assert told["polygons"]["least_iou"] == pytest.approx(min(overlaps), abs=1e-4)
    data = read(tmp_path / "o", COCO_FILE)
    assert data["images"][0]["file_name"].startswith("images/unlabeled/")  # as in the data folder


def test_limits_leave_out_and_labels_come_along(run: Pipeline, tmp_path: Path):
    words = ("--format", "coco", "--min-reliability", "0.5", "--with-labels")
    told = export(run, tmp_path / "o", *words)
    best = [row for row in pseudo_labels(run) if row["reliability"] >= 0.5]
    given = run.artifacts()["ingest"].table("instances").read().to_pylist()
    assert told["objects"] == len(best) + len(given)
    data = read(tmp_path / "o", COCO_FILE)
    assert sum("score" not in a for a in data["annotations"]) == len(given)
    assert {image["file_name"].split("/")[0] for image in data["images"]} == {
        "labeled",
        "unlabeled",
    }


def test_predictions_are_those_of_validation_images(run: Pipeline, tmp_path: Path):
    told = export(run, tmp_path / "o", "--format", "coco", "--of", "predictions", "--rle")
    rows = run.artifacts()["predict"].table("predictions").read().to_pylist()
    masks = [(row["image_id"], row["mask_rle"]) for row in rows]
    data = read(tmp_path / "o", COCO_FILE)
    exported = [(a["image_id"], a["segmentation"]["counts"]) for a in data["annotations"]]
    assert told["images"] == 8
    assert set(exported) <= set(masks)
    assert len(exported) + told["left_out"].get("masks without a pixel", 0) == len(masks)


def test_fiftyone_has_the_embedding_of_every_object(run: Pipeline, tmp_path: Path):
    export(run, tmp_path / "o", "--format", "fiftyone")
    rows = run.artifacts()["discover"].table("assignments").read().to_pylist()
    embedding_of = {row["crop_index"]: row["embedding"] for row in rows}
    for annotation in read(tmp_path / "o", "labels.json")["annotations"]:
        want = np.array(embedding_of[annotation["crop_index"]], np.float32)
        assert np.array_equal(np.array(annotation["embedding"], np.float32), want)


def test_label_studio_has_percent_of_the_image(run: Pipeline, tmp_path: Path):
    export(run, tmp_path / "o", "--format", "label-studio", "--min-iou", "1")
    rows = iter(pseudo_labels(run))
    for task in read(tmp_path / "o", "tasks.json"):
        name = task["data"]["image"].removeprefix("/data/local-files/?d=o/images/")
        assert (tmp_path / "o" / "images" / name).is_file()
        for region in task["predictions"][0]["result"]:
            row = next(rows)
            size = row["height_px"], row["width_px"]
            points = np.array(region["value"]["points"]) / 100 * size[::-1]
            drawn = rle_from_polygons([points.ravel().tolist()], *size)
            assert iou_matrix([drawn], [row["mask_rle"]], *size)[0, 0] == 1
            assert region["value"]["polygonlabels"] == [row["name"]]
    assert next(rows, None) is None


def test_yolo_has_shares_of_the_image(run: Pipeline, tmp_path: Path):
    told = export(run, tmp_path / "o", "--format", "yolo", "--min-iou", "1")
    names = yaml.safe_load((tmp_path / "o" / "data.yaml").read_text())["names"]
    rows, seen = pseudo_labels(run), 0
    for path in sorted((tmp_path / "o" / "images").iterdir()):
        height, width = size_of(path)
        for line in (tmp_path / "o" / "labels" / f"{path.stem}.txt").read_text().splitlines():
            number, *share = line.split()
            points = np.array(share, float).reshape(-1, 2) * (width, height)
            drawn = rle_from_polygons([points.ravel().tolist()], height, width)
            row = rows[seen]
            assert iou_matrix([drawn], [row["mask_rle"]], height, width)[0, 0] == 1
            assert names[int(number)] == row["name"]
            seen += 1
    assert seen == len(rows) == told["objects"]


def test_crops_lie_in_folders_of_their_class(run: Pipeline, tmp_path: Path):
    told = export(run, tmp_path / "o", "--format", "folders")
    jpegs = run.artifacts()["crop"].table("crops").read(["crop_index", "jpeg"]).to_pylist()
    jpeg_of = {row["crop_index"]: row["jpeg"] for row in jpegs}
    rows = pseudo_labels(run)
    for row in rows:
        path = tmp_path / "o" / row["name"] / f"{row['crop_index']}.jpg"
        assert path.read_bytes() == jpeg_of[row["crop_index"]]
    assert len(list((tmp_path / "o").glob("*/*.jpg"))) == len(rows) == told["crops"]


def test_an_export_again_is_the_same_bytes(run: Pipeline, tmp_path: Path):
    for out in ("a", "b"):
        export(run, tmp_path / out, "--format", "cvat")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.json"))
    assert len(files) == 3
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )


def test_links_lead_to_the_data(run: Pipeline, tmp_path: Path):
    export(run, tmp_path / "o", "--format", "coco", "--images", "link")
    links = list((tmp_path / "o" / "images").iterdir())
    assert links
    assert all(link.is_symlink() and link.is_file() for link in links)


def test_what_cannot_be_exported_is_named(run: Pipeline, tmp_path: Path):
    storage, out = run.config.storage, tmp_path / "o"
    assert "takes polygons" in refused(storage, out, "--format", "yolo", "--rle")
    assert "by the image files" in refused(storage, out, "--format", "yolo", "--images", "none")
    assert "are not exported as" in refused(storage, out, "--format", "coco", "--of", "crops")
    words = ("--format", "coco", "--of", "predictions", "--min-reliability", "0.5")
    assert "predictions have a score" in refused(storage, out, *words)
    assert "no local folder" in refused(storage, "s3://bucket", "--format", "coco")
    assert not out.exists()
    export(run, out, "--format", "coco", "--images", "none")
    assert "--force" in refused(storage, out, "--format", "coco")
    export(run, out, "--format", "yolo", "--force")
    assert (out / "data.yaml").is_file()
    assert not (out / COCO_FILE).exists()


def copied(run: Pipeline, folder: Path) -> Path:
    """A storage with links to what the run has made, whose note and names are its own."""
    (folder / "runs").mkdir(parents=True)
    shutil.copy(Path(run.config.storage) / "runs" / "small.json", folder / "runs")
    for made in Path(run.config.storage).iterdir():
        if made.name not in ("runs", "names"):
            (folder / made.name).symlink_to(made)
    return folder


def test_names_that_people_have_given_are_laid_on(run: Pipeline, tmp_path: Path):
    storage = copied(run, tmp_path / "s")
    novel = next(row for row in pseudo_labels(run) if row["name"].startswith("novel"))
    key = open_run(str(storage)).crops_key
    append(open_storage(str(storage)), key, [Name(novel["crop_index"], "Größe: 3/4")])
    for form, words in (("coco", ("--images", "none")), ("folders", ())):
        out = tmp_path / form
        done = here(["export", str(storage), "--out", str(out), "--format", form, *words])
        assert done.returncode == 0, done.stderr
    names = [row["name"] for row in read(tmp_path / "coco", COCO_FILE)["categories"]]
    assert "Größe: 3/4" in names
    assert novel["name"] not in names
    folder = tmp_path / "folders" / "Größe_ 3_4"
    assert (folder / f"{novel['crop_index']}.jpg").is_file()
    assert "Größe: 3/4 is in folder Größe_ 3_4" in done.stdout
    append(open_storage(str(storage)), key, [Reject(novel["crop_index"])])
    assert "rejected since this run was made" in refused(
        str(storage), tmp_path / "o", "--format", "coco"
    )


def test_a_run_that_has_not_got_there_is_told(run: Pipeline, tmp_path: Path):
    storage = copied(run, tmp_path / "s")
    note = json.loads((storage / "runs" / "small.json").read_text())
    note["keys"]["label"] = "0" * 24
    (storage / "runs" / "small.json").write_text(json.dumps(note))
    said = refused(str(storage), tmp_path / "o", "--format", "coco")
    assert "stage label has not been run" in said


@pytest.mark.thorough
def test_a_killed_export_is_begun_anew(run: Pipeline, tmp_path: Path):
    out, words = tmp_path / "o", ["--format", "coco"]
    for _ in range(3):
        line = ["export", run.config.storage, "--out", str(out), *words]
        process = subprocess.Popen(program(line), env=environment())
        first = tmp_path / "o.unfinished" / "images" / "000001.jpg"
        while process.poll() is None and not first.exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not out.exists() or (out / "export.json").is_file()
    export(run, out, *words, "--force")
    export(run, tmp_path / "p", *words)
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
    assert len(files) == 24 + 2
    for name in files:
        assert (out / name).read_bytes() == (tmp_path / "p" / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o", "p"]


@pytest.mark.thorough
def test_what_gcdis_predict_has_written_can_be_exported(run: Pipeline, root: Path, tmp_path: Path):
    images = sorted((root / "images" / "validation").iterdir())[:3]
    applied = tmp_path / "applied"
    (tmp_path / "new").mkdir()
    for path in images:
        shutil.copy(path, tmp_path / "new")
    words = ["--images", str(tmp_path / "new"), "--out", str(applied), "--runtime", "local"]
    done = here(["predict", run.config.storage, *words])
    assert done.returncode == 0, done.stderr
    words = ["--format", "coco", "--of", "predictions", "--rle", "--images", "link"]
    done = here(["export", str(applied), "--out", str(tmp_path / "o"), *words])
    assert done.returncode == 0, done.stderr
    data = read(tmp_path / "o", COCO_FILE)
    assert [row["file_name"] for row in data["images"]] == [path.name for path in images]
    results = json.loads((applied / "results.json").read_text())

    def told(rows: list[dict[str, Any]]) -> set[tuple[int, int, str]]:
        return {(r["image_id"], r["category_id"], r["segmentation"]["counts"]) for r in rows}

    assert data["annotations"]
    assert told(data["annotations"]) <= told(results)
    said = refused(str(applied), tmp_path / "p", "--format", "coco")
    assert "--of predictions" in said
