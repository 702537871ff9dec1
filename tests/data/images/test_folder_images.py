"""Plain folders: what is an image there, and what is left out, counted and named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from coco_folder import image_bytes
from flaky_service import flaky_service

from gcdis_ray.data.images.folder_images import LeftOut, image_names, most_frequent
from gcdis_ray.errors import DataError
from gcdis_ray.store.meter import metering
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import LocalFolder, S3Folder

JPEG, PNG, WEBP = (image_bytes(1, suffix=suffix) for suffix in (".jpg", ".png", ".webp"))
IMAGES = {
    "a.JPG": JPEG,
    "b.jpeg": JPEG,
    "c.jfif": JPEG,
    "d.jpe": JPEG,
    "deep/e.png": PNG,
    "f.bmp": JPEG,
    "g": WEBP,
    "a.b.1": PNG,
    "damaged.jpg": b"",  # ingest will say what is wrong with it
}
OTHERS = {
    "h.tif": b"II*\0 and more",
    "i.gif": b"GIF89a",
    "j.gif": b"GIF89a",
    "k": b"",
    "l.json": JPEG,  # not looked into
    ".m.jpg": JPEG,
    ".dvc/cache/files/md5/a0/0123456789abcdef": JPEG,
    "deep/.git/annex/1.jpg": JPEG,
}


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_images_are_told_by_content(tmp_path: Path, request: pytest.FixtureRequest, place: str):
    if place == "folder":
        for name, data in {**IMAGES, **OTHERS}.items():
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(data)
        folder = LocalFolder(str(tmp_path))
    else:
        prefix = Prefix(f"s3://bucket/{tmp_path.name}", request.getfixturevalue("s3_endpoint"))
        for name, data in {**IMAGES, **OTHERS}.items():
            prefix.write(f"in/{name}", data)
        folder = S3Folder(prefix)
    left_out = LeftOut()
    assert set(image_names(folder, "in", left_out)) == set(IMAGES)
    kinds = {".tif": 1, ".gif": 2, "without suffix": 1, ".json": 1, "hidden": 3}
    assert left_out.counts == Counter(kinds)
    assert left_out.describe().startswith("8 other files (3 hidden, 2 .gif, 1 .json, 1 .tif, 1 w")
    assert left_out.describe().endswith(
        "such as .dvc/cache/files/md5/a0/0123456789abcdef, i.gif, l.json"
    )


def test_what_does_not_open_is_counted(tmp_path: Path):
    (tmp_path / "1.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "2").symlink_to("2")
    (tmp_path / "3\n.jpg").write_bytes(JPEG)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.jpg")).write_bytes(JPEG)
    os.mkfifo(tmp_path / "pipe")
    left_out = LeftOut()
    assert list(image_names(LocalFolder(str(tmp_path)), ".", left_out)) == []
    assert left_out.counts == {
        "links that lead nowhere": 2,
        "names of control characters, or not in UTF-8": 2,
    }
    left_out.describe().encode()


def test_many_files_pass_by_in_parts(tmp_path: Path):
    for number in range(700):
        (tmp_path / f"{number}{('.jpg', '', '.txt')[number % 3]}").write_bytes(JPEG)
    left_out = LeftOut()
    names = list(image_names(LocalFolder(str(tmp_path)), ".", left_out))
    assert len(set(names)) == len(names) == 467
    assert left_out.counts == {".txt": 233}


def test_kinds_of_any_number_are_told_in_a_line():
    left_out = LeftOut()
    for number in reversed(range(3000)):
        left_out.add(f"1.2.840.{number}", f".{number}")
        left_out.add(f"{number}.gif", ".gif")
    told = left_out.describe()
    assert told.startswith("6,000 other files (3,000 .gif, 1 .0, 1 .1, 1 .10, ")
    assert told.endswith(", 2,993 of 2,993 other kinds), such as 0.gif, 1.2.840.0, 1.2.840.1")
    assert sum(most_frequent(left_out.counts).values()) == left_out.total


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "no"), "files that cannot be read"),
        (FileNotFoundError(2, "gone"), "without suffix"),
        (OSError(5, "broken"), None),
    ],
)
def test_files_that_nobody_may_look_into(tmp_path: Path, error: OSError, kind: str | None):
    (tmp_path / "a").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(JPEG)
    left_out = LeftOut()
    with mock.patch.object(LocalFolder, "head", side_effect=error):
        if kind is None:  # an outage changes no result
            with pytest.raises(DataError, match=r"/a: cannot be read \(broken\)"):
                list(image_names(LocalFolder(str(tmp_path)), ".", left_out))
        else:
            found = list(image_names(LocalFolder(str(tmp_path)), ".", left_out))
            assert found == ["b.jpg"]
            assert left_out.counts == {kind: 1}


def test_objects_are_told_by_their_start_once(tmp_path: Path, s3_endpoint: str):
    with flaky_service(s3_endpoint) as service:
        prefix = Prefix(f"s3://bucket/{tmp_path.name}", service.url)
        data = {"a": JPEG, "b.jpg": JPEG, "scan.dcm": bytes(100_000), "empty": b""}
        for name, content in data.items():
            prefix.write(f"in/{name}", content)
        service.requests.clear()
        for _ in range(2):
            with metering() as meter:
                found = sorted(image_names(S3Folder(prefix), "in", LeftOut()))
            assert found == ["a", "b.jpg"]
        gets = [request for request in service.requests if "list-type" not in request]
        assert sorted(gets) == [
            f"GET /bucket/{tmp_path.name}/in/{n}" for n in ("a", "empty", "scan.dcm")
        ]
        assert meter.read_bytes == 0
        prefix.write("in/a", b"text")
        assert list(image_names(S3Folder(prefix), "in", LeftOut())) == ["b.jpg"]
