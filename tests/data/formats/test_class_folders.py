"""Folders that are named by classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.data.formats.class_folders import ClassFolders
from gcdis_ray.data.images.image_names import id_of_name
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import LocalFolder

FILES = ("cat/1.jpg", "cat/far/below/2.PNG", "dog/1.jpg", "3.jpg")
OTHERS = ("dog/notes.txt", ".hidden/1.jpg", "owl/.x.jpg", "empty/readme.md")


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    for name in (*FILES, *OTHERS):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return LocalFolder(str(tmp_path))


def test_what_is_read(folder: LocalFolder):
    found = ClassFolders(folder, "images")
    id_of = {c.name: c.category_id for c in found.categories}
    assert set(id_of) == {"cat", "dog"}
    records = {record.file_name: record for record in found.images()}
    assert set(records) == set(FILES)
    assert all(record.height_px is None for record in records.values())
    told = {raw["image_id"]: raw["category_id"] for raw in found.annotations()}
    by_name = {name: told.get(record.image_id) for name, record in records.items()}
    cat, dog = id_of["cat"], id_of["dog"]
    assert [by_name[name] for name in FILES] == [cat, cat, dog, None]
    assert [found.category_of(name) for name in FILES] == [cat, cat, dog, None]


def test_ids_are_hashes_of_names(folder: LocalFolder):
    """They say nothing of an order of classes, and other folders agree on them."""
    found, below = ClassFolders(folder, "images"), ClassFolders(folder, ".")
    assert {r.image_id for r in found.images()} == {r.image_id for r in below.images()}
    assert next(found.images()).image_id == id_of_name(f"images/{next(found.images()).file_name}")
    assert [c.name for c in below.categories] == ["images"]
    more = Path(folder.uri) / "more"
    for name in ("ant", "cat"):
        (more / name).mkdir(parents=True)
        (more / name / "1.jpg").touch()
    ids = {c.name: c.category_id for c in ClassFolders(folder, "more").categories}
    assert ids["cat"] == {c.name: c.category_id for c in found.categories}["cat"]


def test_no_class(folder: LocalFolder):
    (Path(folder.uri) / "flat").mkdir()
    (Path(folder.uri) / "flat/1.jpg").touch()
    with pytest.raises(DataError, match="no class folder") as caught:
        ClassFolders(folder, "flat")
    assert "flat" in str(caught.value)
