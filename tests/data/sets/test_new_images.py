"""Which images a model is applied to: folders, lists, files, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from coco_folder import image_bytes

from gcdis_ray.data.sets.new_images import NewImages, find_images
from gcdis_ray.errors import DataError

Kind = Literal["stat", "content"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    for name in ("b.jpg", "a/2.png", "a/1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_bytes(len(name)))
    (folder / "notes.txt").write_text("no image")
    return folder


def find(images: Path | str) -> NewImages:
    return find_images(str(images), None, "where")


def digest(images: Path | str, kind: Kind = "stat") -> str:
    return find(images).digest(kind, lambda progress: None, "where")


def write_list(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(map(str, lines)) + "\n")
    return path


def test_a_folder_gives_its_images_by_name(root: Path):
    found = find(root)
    assert list(found.iter_names()) == ["a/1.jpg", "a/2.png", "b.jpg"]
    assert dict(found.left_out.counts) == {".txt": 1}


def test_a_file_is_an_image(root: Path):
    found = find(root / "b.jpg")
    assert (found.folder.uri, list(found.iter_names())) == (str(root), ["b.jpg"])


def test_a_list_names_files_beside_it(root: Path):
    found = find(write_list(root / "list.txt", "b.jpg", "", "a/1.jpg", "b.jpg"))
    assert (found.folder.uri, list(found.iter_names())) == (str(root), ["a/1.jpg", "b.jpg"])
    assert found.repeated == 1


def test_a_list_names_files_elsewhere(root: Path, tmp_path: Path):
    found = find(write_list(tmp_path / "list.txt", root / "b.jpg", "new/a/1.jpg"))
    assert (found.folder.uri, list(found.iter_names())) == (
        str(tmp_path),
        ["new/a/1.jpg", "new/b.jpg"],
    )
    below = tmp_path / "lists"
    below.mkdir()
    found = find(write_list(below / "list.txt", "../new/b.jpg", root / "a/1.jpg"))
    assert (found.folder.uri, list(found.iter_names())) == (str(root), ["a/1.jpg", "b.jpg"])


def test_a_list_may_name_objects(tmp_path: Path):
    found = find(write_list(tmp_path / "list.txt", "s3://bucket/a/1.jpg", "s3://bucket/2.jpg"))
    assert (found.folder.uri, list(found.iter_names())) == ("s3://bucket", ["2.jpg", "a/1.jpg"])


@pytest.mark.parametrize("kind", ["stat", "content"])
@pytest.mark.parametrize("listed", [False, True])
def test_changes_are_seen(root: Path, kind: Kind, listed: bool):
    images = write_list(root / "list.txt", "b.jpg", "a/1.jpg", "a/2.png") if listed else root
    seen = [digest(images, kind), digest(images, kind)]
    assert seen[0] == seen[1]
    os.utime(root / "b.jpg", ns=(5, 5))
    seen.append(digest(images, kind))
    assert (seen[1] == seen[2]) == (kind == "content")
    (root / "b.jpg").write_bytes(image_bytes(99))
    seen.append(digest(images, kind))
    (root / "b.jpg").rename(root / "c.jpg")
    if listed:
        write_list(root / "list.txt", "c.jpg", "a/1.jpg", "a/2.png")
    seen.append(digest(images, kind))
    assert len(set(seen[2:])) == 3


def test_other_files_of_a_folder_do_not_count(root: Path):
    before = digest(root)
    (root / "notes.txt").write_text("more")
    assert digest(root) == before


def several_places(root: Path) -> Path:
    return write_list(root / "list.txt", "s3://bucket/a.jpg", "b.jpg")


def two_buckets(root: Path) -> Path:
    return write_list(root / "list.txt", "s3://one/a.jpg", "s3://two/b.jpg")


def missing_files(root: Path) -> Path:
    return write_list(root / "list.txt", "b.jpg", "gone.jpg", "a/gone.jpg")


def empty_folder(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def without_images(root: Path) -> Path:
    (root / "texts").mkdir()
    (root / "texts/readme.md").write_text("nothing")
    return root / "texts"


def no_text(root: Path) -> Path:
    (root / "list.txt").write_bytes(b"\xff\xfe\x00")
    return root / "list.txt"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "nowhere", "no such folder or file"),
        (lambda root: root / "nowhere.txt", "no such folder or file"),
        (empty_folder, "no image file in"),
        (without_images, "but 1 other file (1 .md)"),
        (lambda root: write_list(root / "list.txt", "", " "), "lists no image"),
        (no_text, "text in UTF-8"),
        (several_places, "several places"),
        (two_buckets, "several places"),
        (missing_files, "2 of 3 listed images are not there, or may not be read: a/gone.jpg"),
    ],
)
def test_what_is_wrong_is_named(root: Path, make: Callable[[Path], Any], said: str):
    with pytest.raises(DataError) as raised:
        digest(make(root))
    assert said in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_no_rights_are_named(root: Path):
    root.chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            find(root)
    finally:
        root.chmod(0o755)
    (root / "b.jpg").chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        digest(write_list(root / "list.txt", "b.jpg"), "content")
