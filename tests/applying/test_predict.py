"""``gcdis predict``: what stage predict sees, in files that others read; and its mistakes."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from applied import SHARDS, images_of, predict, result_files, storage_of
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_run import here, open_pipeline

import gcdis_ray
from gcdis_ray.applying.bundle import write_bundle
from gcdis_ray.applying.opening import open_trained
from gcdis_ray.applying.outputs import PREDICTED
from gcdis_ray.applying.pictures import picture_name
from gcdis_ray.config import apply_overrides
from gcdis_ray.curating.acts import Name
from gcdis_ray.curating.log import append
from gcdis_ray.errors import DataError
from gcdis_ray.run.graph import make_config
from gcdis_ray.run.opened import open_run
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.run.plan import describe

COLUMNS = ["class_index", "score", "bbox_xyxy", "mask_rle", "height_px", "width_px"]


class Found(NamedTuple):
    out: Path
    printed: str
    told: str


@pytest.fixture(scope="module")
def found(small_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What ``gcdis predict`` makes of the validation images of the small run."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    done = predict(storage_of(small_run), images_of(small_run), out, "--set", SHARDS)
    assert done.returncode == 0, done.stderr
    return Found(out, done.stdout, done.stderr)


def rows(out: Path) -> pa.Table:
    return pq.read_table(out / "predictions")


def by_name(table: pa.Table, name_of: dict[int, str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for image_id, row in zip(
        table["image_id"].to_pylist(), table.select(COLUMNS).to_pylist(), strict=True
    ):
        found.setdefault(name_of[image_id], []).append(row)
    return found


def test_it_sees_what_stage_predict_sees(small_run: Any, found: Found):
    """Every mask, box and score, bit by bit, although shards are others."""
    pipeline = open_pipeline(small_run.overrides)
    ingest, stage = pipeline.artifact("ingest"), pipeline.artifact("predict")
    assert ingest is not None
    assert stage is not None
    index = ingest.table("image_index").read()
    names = {
        i: uri.rpartition("/")[2]
        for i, uri in zip(index["image_id"].to_pylist(), index["uri"].to_pylist(), strict=True)
    }
    expected = by_name(stage.table("predictions").read(), names)
    assert sum(map(len, expected.values())) > 100
    table = rows(found.out)
    mine = dict(zip(table["image_id"].to_pylist(), table["file_name"].to_pylist(), strict=True))
    assert by_name(table, mine) == expected
    assert sorted(set(mine)) == list(range(1, 9))  # dense, by the order of names
    assert [mine[i] for i in range(1, 9)] == sorted(mine.values())


def test_the_table_says_what_is_what(found: Found):
    table = rows(found.out)
    assert table.schema.names == PREDICTED.names
    classes = {row["class_index"]: row for row in json_of(found.out, "summary.json")["classes"]}
    for row in table.slice(0, 50).to_pylist():
        its = classes[row["class_index"]]
        told = (row["name"], row["known"], row["category_id"])
        assert told == (its["name"], its["known"], its["category_id"])
    assert {c["name"] for c in classes.values()} >= {"digit 0", "novel 1"}
    assert sum(c["predictions"] for c in classes.values()) == table.num_rows


def json_of(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


def test_pycocotools_reads_it(small_run: Any, found: Found):
    images = COCO(str(found.out / "images.json"))
    results = images.loadRes(str(found.out / "results.json"))
    table = rows(found.out)
    assert len(results.anns) == table.num_rows
    text = (found.out / "results.json").read_text()
    assert text == json.dumps(json.loads(text))  # the form that is read fastest
    assert {c["name"] for c in images.loadCats(images.getCatIds())} >= {"digit 0", "novel 1"}
    first, row = json_of(found.out, "results.json")[0], table.slice(0, 1).to_pylist()[0]
    x, y, width, height = np.float32(first["bbox"])
    assert [x, y] == row["bbox_xyxy"][:2]
    assert np.allclose([x + width, y + height], row["bbox_xyxy"][2:], atol=1e-4)
    assert np.float32(first["score"]) == row["score"]
    evaluated = COCOeval(results, results, "segm")  # itself as truth: masks decode
    evaluated.params.imgIds = [1]
    evaluated.evaluate()


def test_our_evaluation_reads_it(small_run: Any, found: Found, tmp_path: Path):
    """Known classes keep the ids of the data set: results meet its ground truth."""
    scenes = images_of(small_run).parents[1]
    truth = json.loads((scenes / "annotations/validation.json").read_text())
    place = {
        image["file_name"]: image["id"] for image in json_of(found.out, "images.json")["images"]
    }
    new = {image["id"]: place[Path(image["file_name"]).name] for image in truth["images"]}
    for image in truth["images"]:
        image["id"] = new[image["id"]]
    for annotation in truth["annotations"]:
        annotation["image_id"] = new[annotation["image_id"]]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = found.out / "results.json"
    words = ["evaluate", "--ground-truth", tmp_path / "truth.json", "--results", results, "--json"]
    words += [
        "--known-classes",
        *(f"digit {n}" for n in range(5)),
        "--mapping-source",
        "detections",
    ]
    done = here([str(word) for word in words])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mask"]["AP"] >= 0


def test_again_there_is_nothing_to_do(small_run: Any, found: Found):
    before = result_files(found.out)
    again = predict(storage_of(small_run), images_of(small_run), found.out, "--set", SHARDS)
    assert again.returncode == 0
    assert "Nothing to do" in again.stderr
    assert "Nothing to do" not in found.told
    assert result_files(found.out) == before
    assert again.stdout.splitlines()[-1] == found.printed.splitlines()[-1]


def test_names_of_people_cost_no_prediction(small_run: Any, found: Found, tmp_path: Path):
    """They are laid over what was predicted, and come with a bundle."""
    storage, out = tmp_path / "storage", tmp_path / "out"
    shutil.copytree(storage_of(small_run), storage)
    shutil.copytree(found.out, out)
    run = open_run(str(storage))
    assignments = run.artifact_with("assignments").table("assignments").read()
    clusters = assignments["cluster_id"].to_numpy()
    cluster = int(np.bincount(clusters[clusters >= 5]).argmax())
    crop = assignments["crop_index"][int(np.argmax(clusters == cluster))].as_py()
    append(run.storage, run.crops_key, [Name(crop, "zebra")])
    done = predict(storage, images_of(small_run), out, "--set", SHARDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cached") == 3
    before, after = rows(found.out), rows(out)
    assert after.drop_columns("name") == before.drop_columns("name")
    renamed = {
        (row["class_index"], row["name"])
        for row in json_of(out, "summary.json")["classes"]
        if row not in json_of(found.out, "summary.json")["classes"]
    }
    assert {name for _, name in renamed} == {"zebra"}
    write_bundle(open_trained(str(storage)), str(tmp_path / "bundle"))
    assert "zebra" in {c.name for c in open_trained(str(tmp_path / "bundle")).classes}


def test_a_file_that_was_removed_comes_back(small_run: Any, found: Found, tmp_path: Path):
    out = tmp_path / "out"
    shutil.copytree(found.out, out)
    (out / "results.json").unlink()
    done = predict(storage_of(small_run), images_of(small_run), out, "--set", SHARDS)
    assert "Nothing to do" not in done.stderr
    assert "predict      " in done.stderr
    assert "cached" in done.stderr  # only the file was made
    assert result_files(out) == result_files(found.out)


def test_other_images_are_other_work(small_run: Any, tmp_path: Path):
    """What is no image is counted; what has changed is seen again."""
    images, out = tmp_path / "new", tmp_path / "out"
    images.mkdir()
    for path in sorted(images_of(small_run).iterdir())[:2]:
        shutil.copy(path, images / path.name)
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (images / "notes.md").write_text("text")
    model = storage_of(small_run)
    first = predict(model, images, out, "--json", "--pictures", "--max-per-image", "5")
    told = json.loads(first.stdout)
    assert (told["images"], told["quarantined"], told["predictions"]) == (2, 1, 10)
    assert [file["uri"] for file in told["quarantine"]] == ["broken.jpg"]
    assert "files_left_out: .md: 1" in first.stderr
    drawn = sorted(path.name for path in (out / "pictures").iterdir())
    assert drawn == sorted(path.name for path in images.glob("0*.jpg"))
    assert Image.open(out / "pictures" / drawn[0]).size == (640, 640)
    (images / "broken.jpg").unlink()
    second = predict(model, images, out, "--max-per-image", "5")
    assert "Nothing to do" not in second.stderr
    assert not (out / "pictures").exists()  # they were of other images
    assert json_of(out, "summary.json")["quarantined"] == 0
    assert len(rows(out)) == 10


def test_pictures_show_what_is_sure_enough(small_run: Any, found: Found, tmp_path: Path):
    """Of some images, spread evenly; another threshold draws them anew and nothing else."""
    out, model, images = tmp_path / "out", storage_of(small_run), images_of(small_run)
    shutil.copytree(found.out, out)
    seen = []
    for more in (["2"], ["2"], ["2", "--display-score", "1"]):
        done = predict(model, images, out, "--set", SHARDS, "--pictures", *more)
        assert done.returncode == 0, done.stderr
        seen.append({path.name: path.read_bytes() for path in (out / "pictures").iterdir()})
    names = sorted(path.name for path in images.iterdir())
    assert sorted(seen[0]) == [names[0], names[-1]]
    assert seen[0] == seen[1]
    assert seen[2].keys() == seen[0].keys()
    assert all(seen[2][name] != seen[0][name] for name in seen[0])
    tables = {name: data for name, data in result_files(found.out).items() if "summary" not in name}
    assert tables.items() <= result_files(out).items()


def test_it_is_a_run_like_others(small_run: Any, found: Found):
    run = open_run(str(found.out))
    assert (run.config.recipe, run.has("predictions")) == ("predict", True)
    entries = {entry["name"]: entry for entry in describe(Pipeline(run.config))}
    assert {name: entry["action"] for name, entry in entries.items()} == dict.fromkeys(
        ("model", "images", "predict"), "cached"
    )
    changed = apply_overrides(run.config.model_dump(), ["stages.images.exif=ignore"])
    anew = {e["name"]: e for e in describe(Pipeline(make_config(changed, "here")))}
    assert (anew["images"]["action"], anew["images"]["rows"]) == ("run", 8)
    assert (anew["model"]["action"], anew["predict"]["action"]) == ("cached", "run")


def test_the_library_is_the_command(small_run: Any, found: Found, tmp_path: Path):
    """Of paths, PIL images and arrays; of a bundle elsewhere."""
    bundle = tmp_path / "bundle"
    assert here(["bundle", storage_of(small_run), str(bundle)]).returncode == 0
    model = gcdis_ray.load(bundle.rename(tmp_path / "moved"), device="cpu")
    assert [c.name for c in model.classes][:5] == [f"digit {n}" for n in range(5)]
    table = rows(found.out)
    paths = sorted(images_of(small_run).iterdir())[:3]
    given = [paths[0], Image.open(paths[1]), np.array(Image.open(paths[2]).convert("RGB"))]
    for path, objects in zip(paths, model.predict(iter(given)), strict=True):
        expected = table.filter(pa.compute.equal(table["file_name"], path.name))  # pyright: ignore
        assert [one.mask_rle for one in objects] == expected["mask_rle"].to_pylist()
        assert [np.float32(one.score) for one in objects] == expected["score"].to_pylist()
        assert [one.name for one in objects] == expected["name"].to_pylist()
        assert [one.known for one in objects] == expected["known"].to_pylist()
        assert np.allclose([one.bbox_xyxy for one in objects], expected["bbox_xyxy"].to_pylist())
    one = model.predict(str(paths[0]), max_per_image=1)[0]
    assert len(one) == 1
    assert one[0].mask().shape == one[0].size == (128, 128)
    assert one[0].mask().sum() > 0
    sure = model.predict(given[2], min_score=one[0].score)  # one array is one image
    assert len(sure) == 1
    assert all(p.score >= one[0].score for p in sure[0])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nowhere.jpg", "nowhere.jpg: cannot be read"),
        (__file__, "not a JPEG, PNG or WebP file"),
        (np.zeros((4, 4), np.uint8), "give (H, W, 3) uint8"),
        (np.zeros((4, 4, 3), np.float32), "give (H, W, 3) uint8"),
    ],
)
def test_the_library_names_mistakes(small_run: Any, image: Any, said: str):
    model = gcdis_ray.load(storage_of(small_run), device="cpu")
    with pytest.raises(DataError) as raised:
        model.predict([image])
    assert said in str(raised.value)


def test_mistakes_of_the_command_are_named(small_run: Any, tmp_path: Path):
    model, images = storage_of(small_run), images_of(small_run)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pictures").mkdir()
    (tmp_path / "mine" / "pictures" / "holiday.jpg").write_bytes(b"precious")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text("gone.jpg\n")
    out = tmp_path / "out"
    for said, words in {
        "no image file in": (model, tmp_path / "empty", out),
        "none of 1 files can be used": (model, tmp_path / "broken", out),
        "gone.jpg": (model, tmp_path / "list.txt", out),
        "no run lies there": (tmp_path / "empty", images, out),
        "holds other files": (model, images, tmp_path / "mine"),
        "lies in the folder of images": (model, images, images / "out"),
        "holds the model itself": (model, images, model),
        "stages.predict.min_score": (model, images, out, "--set", "stages.predict.min_score=2"),
        "seed cannot be set here": (model, images, out, "--set", "seed=1"),
        "less than or equal to 1": (model, images, out, "--min-score", "2"),
        "--pictures: must not be negative": (model, images, out, "--pictures", "-1"),
        "--display-score: must be in": (model, images, out, "--pictures", "--display-score", "7"),
        "add --pictures": (model, images, out, "--display-score", "0.5"),
    }.items():
        done = predict(*words)
        assert (done.returncode, done.stdout) == (2, ""), said
        assert said in done.stderr, done.stderr
    assert (tmp_path / "mine" / "pictures" / "holiday.jpg").read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_named(
    small_run: Any, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_bytes(b"")
    done = predict(storage_of(small_run), images_of(small_run), tmp_path / "file" / "out")
    assert done.returncode == 2
    assert str(tmp_path / "file" / "out") in done.stderr
    out = tmp_path / "out"
    shutil.copytree(found.out, out)
    before = result_files(out)
    monkeypatch.setattr(os, "fsync", _no_room)
    done = predict(storage_of(small_run), images_of(small_run), out)  # other shards
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "free disk space" in done.stderr
    assert result_files(out) == before


def _no_room(number: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_two_images_have_one_picture():
    names = {picture_name(uri, n) for n, uri in enumerate(("a.png", "a.png.jpg", "a", "a.jpg"))}
    assert names == {"a.png.0.jpg", "a.png.jpg", "a.2.jpg", "a.jpg"}
