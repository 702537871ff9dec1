"""Ingest and image files as people have them: turned, deep, linked, oddly named."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from coco_folder import HEIGHT, WIDTH, folder_config, image_bytes, make_coco_folder, write_json
from PIL import Image

from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.data.sets.data_check import check_data
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.run.work import StageWork
from gcdis_ray.stages import ingest
from gcdis_ray.store.members import Inputs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data")
    return tmp_path / "data"


def config(root: Path, /, **changes: Any) -> ingest.Config:
    return ingest.Config(**folder_config(root, **changes))


def nothing() -> Inputs:
    return {}  # pyright: ignore[reportReturnType]


def turn(path: Path, orientation: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = Image.open(io.BytesIO(image_bytes(7, height, width)))
    pixels.save(path, "JPEG", exif=exif, quality=95)


def reasons(work: StageWork) -> dict[str, str]:
    return {row["uri"]: row["reason"] for row in work.table("quarantine").read().to_pylist()}


def test_turned_images_are_turned_and_counted(root: Path, local_work: StageWork):
    turn(root / "images/1.jpg", 6, WIDTH, HEIGHT)  # of the listed size when turned
    turn(root / "images/5.jpg", 3)
    turn(root / "images/9.jpg", 1)
    ingest.run(nothing(), config(root), local_work)
    assert reasons(local_work) == {}
    assert local_work.counts["images_turned"] == 2
    rows = local_work.table("images").read()
    turns = dict(zip(rows["image_id"].to_pylist(), rows["turn"].to_pylist(), strict=True))
    assert {image_id: t for image_id, t in turns.items() if t != 1} == {1: 6, 5: 3}
    for row, file in zip(rows.to_pylist(), ImageFiles().read(rows), strict=True):
        assert file.pixels().shape == (row["height_px"], row["width_px"], 3) == (HEIGHT, WIDTH, 3)


def test_a_turn_that_the_listed_size_contradicts_is_refused(root: Path, local_work: StageWork):
    turn(root / "images/5.jpg", 6)  # listed as it is stored
    turn(root / "images/6.jpg", 8, 20, 20)
    ingest.run(nothing(), config(root, max_quarantined_share=0.5), local_work)
    found = reasons(local_work)
    assert found["images/5.jpg"] == (
        "its EXIF orientation, 6, turns it, to 40 x 30 pixels (height x width), the annotation "
        "file says 30 x 40, as it is stored: see stages.ingest.exif"
    )
    assert found["images/6.jpg"] == (
        "20 x 20 pixels (height x width), the annotation file says 30 x 40"
    )
    assert local_work.counts["images_turned"] == 0


@pytest.mark.parametrize(("exif", "other"), [("apply", "ignore"), ("ignore", "apply")])
def test_too_many_such_turns_stop(root: Path, local_work: StageWork, exif: str, other: str):
    sides = (HEIGHT, WIDTH) if exif == "apply" else (WIDTH, HEIGHT)
    turn(root / "images/5.jpg", 6, *sides)
    with pytest.raises(
        DataError, match=r"images/5.jpg: .*its EXIF orientation, 6, turns it"
    ) as caught:
        ingest.run(nothing(), config(root, exif=exif), local_work)
    assert f"stages.ingest.exif: {other}" in (caught.value.fix or "")


def test_turns_may_be_refused(root: Path, local_work: StageWork):
    turn(root / "images/5.jpg", 2)
    ingest.run(nothing(), config(root, exif="refuse", max_quarantined_share=0.5), local_work)
    assert reasons(local_work) == {
        "images/5.jpg": "its EXIF orientation, 2, turns it, and stages.ingest.exif is refuse"
    }


def test_turns_may_be_ignored(root: Path, local_work: StageWork):
    turn(root / "images/5.jpg", 6)
    turn(root / "images/6.jpg", 6, WIDTH, HEIGHT)
    ingest.run(nothing(), config(root, exif="ignore", max_quarantined_share=0.5), local_work)
    assert reasons(local_work) == {
        "images/6.jpg": "40 x 30 pixels (height x width), the annotation file says 30 x 40, and "
        "its EXIF orientation, 6, turns it to that: see stages.ingest.exif"
    }
    assert local_work.counts["images_turn_ignored"] == 1
    assert set(local_work.table("images").read(["turn"])["turn"].to_pylist()) == {1}


def test_turns_count_in_the_key(root: Path):
    keys = [
        json.dumps(config(root, **more).key_fields(), default=str)
        for more in ({}, {"exif": "apply"}, {"exif": "ignore"}, {"exif": "refuse"})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_plain_folder_is_turned_too(root: Path, local_work: StageWork):
    (root / "plain").mkdir()
    turn(root / "plain/a", 8)
    ingest.run(nothing(), config(root, unlabeled={"images": "plain"}), local_work)
    rows = {row["uri"]: row for row in local_work.table("images").read().to_pylist()}
    row = rows["plain/a"]
    assert (row["height_px"], row["width_px"], row["turn"]) == (WIDTH, HEIGHT, 8)


def test_deep_images_are_counted(root: Path, local_work: StageWork):
    values = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH), np.uint16)
    Image.fromarray(values).save(root / "images/5.jpg", "PNG")
    ingest.run(nothing(), config(root), local_work)
    assert local_work.counts["images_16_bit_stretched"] == 1
    rows = local_work.table("images").read()
    place = rows["image_id"].to_pylist().index(5)
    pixels = ImageFiles().read(rows.slice(place, 1))[0].pixels()
    assert 120 < pixels.mean() < 135


# ---------------------------------------------------------------- names and links


def test_images_behind_a_linked_folder(root: Path):
    (root / "images").rename(root.parent / "elsewhere")
    (root / "images").mkdir()
    (root / "images/train").symlink_to(root.parent / "elsewhere")
    data = json.loads((root / "all.json").read_text())
    for image in data["images"]:
        image["file_name"] = f"train/{image['file_name']}"
    write_json(root / "all.json", data)
    (root / "images/train/loop").symlink_to("loop")
    for time, settings in enumerate((config(root), config(root, fingerprint="stat"))):
        key = ingest.source(settings)
        os.utime(root.parent / "elsewhere/7.jpg", ns=(time, time))
        assert (ingest.source(settings) == key) == (settings.fingerprint == "content")
    (root.parent / "elsewhere/7.jpg").unlink()
    told = r"unlabeled.images: 1 of 4 images is missing: .*train/7.jpg; of all 12 .* 11 are there"
    with pytest.raises(DataError, match=told):
        ingest.source(config(root))
    facts = check_data(config(root), "mine").sets
    assert [facts[s].missing is None for s in ("labeled", "unlabeled", "validation")] == [1, 0, 1]


def test_a_plain_folder_with_links(root: Path, local_work: StageWork):
    (root / "plain/deep").mkdir(parents=True)
    (root.parent / "elsewhere").mkdir()
    for number, name in enumerate(("plain/a.jpg", "plain/deep/b", "../elsewhere/c.jfif")):
        (root / name).write_bytes(image_bytes(number))
    (root / "plain/more").symlink_to(root.parent / "elsewhere")
    (root / "plain/again").symlink_to("deep")
    (root / "plain/deep/up").symlink_to(root / "plain")
    (root / "plain/gone.jpg").symlink_to("nowhere.jpg")
    (root / "plain/d.gif").write_bytes(b"GIF89a")
    settings = config(root, unlabeled={"images": "plain"})
    facts = check_data(settings, "mine").sets["unlabeled"]
    assert facts.images == 3
    assert facts.linked == "1 file behind links that lead out of root, such as more/c.jfif"
    assert facts.no_images == (
        "2 other files (1 .gif, 1 links that lead nowhere), such as d.gif, gone.jpg"
    )
    ingest.run(nothing(), settings, local_work)
    uris = local_work.table("images").read(["uri"])["uri"].to_pylist()
    assert {uri for uri in uris if uri.startswith("plain")} == {
        "plain/a.jpg",
        "plain/deep/b",
        "plain/more/c.jfif",
    }
    assert local_work.counts["files_left_out: .gif"] == 1
    assert local_work.counts["files_left_out: links that lead nowhere"] == 1


def test_by_stat_a_link_that_leads_elsewhere_is_a_change(root: Path):
    for number in (1, 2):
        (root / f"images/v{number}").mkdir()
        for path in root.glob("images/*.jpg"):
            (root / f"images/v{number}" / path.name).write_bytes(path.read_bytes())
    (root / "images/latest").symlink_to("v1")
    (root / "images/current").symlink_to("latest")
    data = json.loads((root / "all.json").read_text())
    for image in data["images"]:
        image["file_name"] = f"current/{image['file_name']}"
    write_json(root / "all.json", data)
    settings = config(root, fingerprint="stat")
    keys = [ingest.source(settings), ingest.source(settings)]
    (root / "images/latest").unlink()
    (root / "images/latest").symlink_to("v2")
    keys.append(ingest.source(settings))
    (root / "images/current").unlink()
    (root / "images/current").symlink_to("v1")
    keys.append(ingest.source(settings))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("fingerprint", ["content", "stat"])
def test_a_listed_image_in_a_folder_that_may_not_be_entered(
    root: Path, local_work: StageWork, fingerprint: str
):
    (root / "images/locked").mkdir()
    (root / "images/7.jpg").rename(root / "images/locked/7.jpg")
    data = json.loads((root / "all.json").read_text())
    data["images"][6]["file_name"] = "locked/7.jpg"
    write_json(root / "all.json", data)
    genuine = os.stat

    def refused(place, **more):
        if "locked/" in os.fspath(place):
            raise PermissionError(13, "Permission denied")
        return genuine(place, **more)

    settings = config(root, fingerprint=fingerprint)
    told = "locked/7.jpg cannot be read (Permission denied)"
    with mock.patch("os.stat", refused):
        assert told in (check_data(settings, "mine").sets["unlabeled"].missing or "")
        with pytest.raises(DataError, match="1 of 4 images is missing") as caught:  # noqa: PT012
            if fingerprint == "content":
                plan_data(settings).check_present()
            ingest.source(settings)
            ingest.run(nothing(), settings, local_work)
    assert told in caught.value.what
    assert "be read" in (caught.value.fix or "")


def test_a_folder_that_nobody_needs_may_be_closed(root: Path, local_work: StageWork):
    (root / "images/lost+found").mkdir()
    (root / "plain/lost+found").mkdir(parents=True)
    (root / "plain/a.jpg").write_bytes(image_bytes(99))
    genuine = os.scandir

    def refused(place):
        if "lost+found" in os.fspath(place):
            raise PermissionError(13, "Permission denied")
        return genuine(place)

    settings = config(root, unlabeled={"images": "plain"}, fingerprint="stat")
    with mock.patch("os.scandir", refused):
        ingest.source(settings)
        ingest.run(nothing(), settings, local_work)
        told = check_data(settings, "mine").sets["unlabeled"].no_images
    assert local_work.counts["files_left_out: folders that cannot be read"] == 1
    assert told == "1 other file (1 folders that cannot be read), such as lost+found"


def test_every_set_with_missing_images_is_told(root: Path):
    for name in ("1.jpg", "7.jpg"):
        (root / "images" / name).unlink()
    told = "labeled: 1 of 4 images is missing: .*1.jpg; unlabeled: 1 of 4 .*7.jpg; of all 12 .* 10"
    with pytest.raises(DataError, match=told) as caught:
        plan_data(config(root)).check_present()
    assert caught.value.where == "stages.ingest.labeled.images and stages.ingest.unlabeled.images"


def test_files_that_are_no_images_are_not_similar(root: Path):
    (root / "images/7.jpg").rename(root / "images/7.scan")
    (root / "images/7.txt").write_text("0 .5 .5")
    (root / "images/7.bin").write_text("0 .5 .5")
    told = "for 7.jpg there is 7.scan: another suffix"
    assert told in (check_data(config(root), "mine").sets["unlabeled"].missing or "")


def test_data_check_prints_names_of_any_bytes(root: Path, tmp_path: Path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    (root / "images/7.jpg").rename(odd / "7.jpg")
    (root / "images/more").symlink_to(odd)
    (root / "images/\udce9.jpg").symlink_to(odd / "7.jpg")
    report = check_data(config(root), "mine")
    said = "\n".join([*report.lines(), *report.problems])
    said.encode()
    assert "for 7.jpg there is more/7.jpg: in a folder below" in said
    assert report.sets["unlabeled"].linked is not None
    assert report.sets["unlabeled"].linked.startswith("2 files behind links")


@pytest.mark.parametrize(
    ("listed", "there", "words"),
    [
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"), "composed"),
        ("7.JPG", "7.jpg", "other capital letters"),
        ("my%20cat.jpg", "my cat.jpg", "%20"),
        ("images/7.jpg", "7.jpg", "without the folder images"),
    ],
)
@pytest.mark.parametrize("fingerprint", ["content", "stat"])
def test_the_similar_file_is_told(
    root: Path, local_work: StageWork, listed: str, there: str, words: str, fingerprint: str
):
    data = json.loads((root / "all.json").read_text())
    data["images"][6]["file_name"] = listed
    write_json(root / "all.json", data)
    (root / "images/7.jpg").rename(root / "images" / there)
    settings = config(root, fingerprint=fingerprint)
    with pytest.raises(DataError) as caught:  # noqa: PT012  by stat nothing looks before the run
        ingest.source(settings)
        ingest.run(nothing(), settings, local_work)
    assert "1 of 4 images is missing" in str(caught.value)
    assert f"there is {there}: " in str(caught.value)
    assert words in str(caught.value)
    assert "nothing is guessed" in str(caught.value)
    assert words in "".join(check_data(settings, "mine").problems)


def test_a_partial_set_without_any_image_says_what_is_there(root: Path):
    for path in list((root / "images").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    partial = {**folder_config(root)["unlabeled"], "partial": True}
    told = r"4 of 4 images are missing.*; for 5.jpg there is 5.JPG: other capital letters"
    with pytest.raises(DataError, match=told):
        ingest.source(config(root, unlabeled=partial))
