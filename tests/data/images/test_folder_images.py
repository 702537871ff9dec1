"""Plain folders: what is an image there, and what is left out, counted and named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from coco_folder import image_bytes

from gcdis_ray.data.images.folder_images import LeftOut, image_names
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
    kinds = {".tif": 1, ".gif": 2, "without suffix": 1, ".json": 1, "hidden": 1}
    assert left_out.counts == Counter(kinds)
    assert left_out.describe().startswith("6 other files (2 .gif, 1 .json, 1 .tif, 1 hidden, 1 w")
    assert ".m.jpg, " in left_out.describe()


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
