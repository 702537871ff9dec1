"""The folder of an export: whole or not there, and nobody's files are lost."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from gcdis_ray.errors import ConfigError, StorageError
from gcdis_ray.exporting.out_folder import SUMMARY, out_folder


def fill(out: Path | str, text: str, force: bool = False) -> None:
    with out_folder(str(out), force=force) as folder:
        (folder / "labels").write_text(text)
        (folder / SUMMARY).write_text(json.dumps({"format": "coco", "of": "crops"}))


def test_it_appears_whole(tmp_path: Path):
    out = tmp_path / "new" / "o"
    with out_folder(str(out), force=False) as folder:
        (folder / "half").write_text("")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["half"]
    assert [p.name for p in out.parent.iterdir()] == ["o"]


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "o").mkdir()
    fill(tmp_path / "o", "a")
    assert (tmp_path / "o" / "labels").read_text() == "a"


def test_what_a_killed_export_has_left_is_begun_anew(tmp_path: Path):
    left = tmp_path / "o.unfinished"
    (left / "images").mkdir(parents=True)
    (left / ".exporting").touch()
    (left / "images" / "1.jpg").write_text("half")
    fill(tmp_path / "o", "a")
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [SUMMARY, "labels"]
    assert not left.exists()


def test_folders_of_others_beside_it_are_left_alone(tmp_path: Path):
    fill(tmp_path / "o", "a")
    for name in ("o.unfinished", "o.earlier"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"'mine\.txt' is no export's"):
        fill(tmp_path / "o", "b", force=True)
    (tmp_path / "o.unfinished").rename(tmp_path / "other")
    fill(tmp_path / "o", "b", force=True)
    assert (tmp_path / "o" / "labels").read_text() == "b"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o", "o.earlier", "other"]
    assert (tmp_path / "o.earlier" / "mine.txt").read_text() == "mine"


def test_a_failed_export_leaves_what_was_there(tmp_path: Path):
    fill(tmp_path / "o", "a")
    with pytest.raises(ZeroDivisionError), out_folder(str(tmp_path / "o"), force=True):
        _ = 1 / 0
    assert (tmp_path / "o" / "labels").read_text() == "a"
    assert [p.name for p in tmp_path.iterdir()] == ["o"]


def test_an_earlier_export_is_replaced_on_demand_only(tmp_path: Path):
    fill(tmp_path / "o", "a")
    with pytest.raises(ConfigError, match="an earlier export"):
        fill(tmp_path / "o", "b")
    fill(tmp_path / "o", "b", force=True)
    assert (tmp_path / "o" / "labels").read_text() == "b"
    assert [p.name for p in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("force", [False, True])
def test_files_of_others_stay(tmp_path: Path, force: bool):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"'thesis.tex' is no export's"):
        fill(tmp_path / "o", "a", force)
    (tmp_path / "o" / SUMMARY).write_text("[]")
    if force:
        with pytest.raises(ConfigError, match="no export's"):
            fill(tmp_path / "o", "a", force)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "o"):
        with pytest.raises(ConfigError, match="is a file"):
            fill(out, "a")
    with pytest.raises(StorageError, match=r"name another folder|may write"):
        fill(Path("/proc/o"), "a")
    with pytest.raises(ConfigError, match="no local folder"):
        fill("s3://bucket/o", "a")


def test_one_export_at_a_time(tmp_path: Path):
    (tmp_path / "o.unfinished").mkdir()
    with open(tmp_path / "o.unfinished" / ".exporting", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another export"):
            fill(tmp_path / "o", "a")
