"""Rows that processes share: one writes, all map, nothing is left however they end."""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gcdis_ray.errors import StorageError
from gcdis_ray.files import shared_table as module
from gcdis_ray.files.shared_table import RandomRows, shared_table

SCHEMA = pa.schema({"number": pa.int64(), "data": pa.binary()})
shares = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to share through")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class Pieces:
    """Numbers from 0 on, and how often they were asked for."""

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.asked = sizes, 0

    def __call__(self) -> Iterator[pa.Table]:
        self.asked += 1
        first = 0
        for size in self.sizes:
            numbers = range(first, first + size)
            data = [str(number).encode() * number for number in numbers]
            yield pa.table([list(numbers), data], schema=SCHEMA)
            first += size


def notes(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("in_memory", [False, True])
def test_rows_of_all_pieces_in_any_order(in_memory: bool):
    table = shared_table("a", SCHEMA, Pieces(3, 0, 4), in_memory=in_memory)
    assert table["number"].to_pylist() == list(range(7))
    rows = RandomRows(table)
    found = rows.values("data", np.array([6, 2, 3, 0, 6]))
    assert [value.tobytes() for value in found] == [b"6" * 6, b"22", b"333", b"", b"6" * 6]
    assert [len(batch) for batch in rows.column("number")] == [3, 4]
    assert shared_table("none", SCHEMA, Pieces(0), in_memory=in_memory).num_rows == 0


@shares
def test_made_once_while_someone_has_them(folder: Path):
    made, again = Pieces(5), Pieces(5)
    tables = [shared_table("a", SCHEMA, pieces) for pieces in (made, again)]
    assert (made.asked, again.asked) == (1, 0)
    assert tables[0].equals(tables[1])
    shared_table("b", SCHEMA, again)
    assert again.asked == 1
    del tables[0]
    gc.collect()
    shared_table("a", SCHEMA, again)  # through the one that is left
    assert again.asked == 1
    del tables
    gc.collect()
    assert notes(folder) == []
    shared_table("a", SCHEMA, again)
    assert again.asked == 2


@shares
def test_the_file_has_no_name_and_goes_with_the_last_user(folder: Path):
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(folder))

    table = shared_table("a", SCHEMA, Pieces(2000))
    assert table.nbytes > 4_000_000
    assert sum(path.stat().st_size for path in notes(folder)) < 100
    assert mapped() == 1
    column = RandomRows(table).column("data")
    del table
    gc.collect()
    assert mapped() == 1
    del column
    gc.collect()
    assert mapped() == 0


CHILD = """
import sys, tempfile, time
from pathlib import Path
sys.path.insert(0, {tests!r})
tempfile.tempdir = {folder!r}
from files.test_shared_table import SCHEMA, Pieces
from gcdis_ray.files.shared_table import shared_table
pieces = Pieces(50)
def slowly():
    print("WRITES", flush=True)
    if "dies" in sys.argv:
        time.sleep(60)
    yield from pieces()
table = shared_table("a", SCHEMA, slowly, in_memory="memory" in sys.argv)
print("HAS", table.num_rows, pieces.asked, flush=True)
sys.stdin.read()
"""


def child(folder: Path, *how: str) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    command = [sys.executable, "-c", code, *how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


@shares
@pytest.mark.parametrize("where", ["disk", pytest.param("memory", marks=pytest.mark.thorough)])
def test_another_process_maps_what_one_has_written(folder: Path, where: str):
    writer = child(folder, where)
    assert [said(writer), said(writer)] == ["WRITES", "HAS 50 1"]
    pieces, in_memory = Pieces(50), where == "memory"
    table = shared_table("a", SCHEMA, pieces, in_memory=in_memory)
    assert pieces.asked == 0
    assert table["number"].to_pylist() == list(range(50))
    end(writer)  # the rows stay, and others find them here
    third = shared_table("a", SCHEMA, pieces, in_memory=in_memory)
    assert pieces.asked == 0
    assert RandomRows(third).values("data", np.array([30]))[0].tobytes() == b"30" * 30
    assert RandomRows(table).values("data", np.array([30]))[0].tobytes() == b"30" * 30


@shares
@pytest.mark.thorough
def test_killed_users_leave_a_note_and_the_next_one_removes_it(folder: Path):
    user = child(folder)
    assert [said(user), said(user)] == ["WRITES", "HAS 50 1"]
    end(user)
    assert len(notes(folder)) == 1
    assert notes(folder)[0].stat().st_size < 100
    table = shared_table("other", SCHEMA, Pieces(1))
    assert len(notes(folder)) == 1  # that of the other
    pieces = Pieces(50)
    shared_table("a", SCHEMA, pieces)
    assert pieces.asked == 1
    del table


@shares
@pytest.mark.thorough
def test_a_writer_that_dies_is_followed_by_the_one_that_waits(folder: Path):
    writer = child(folder, "dies")
    assert said(writer) == "WRITES"
    waiting = child(folder)
    pieces = Pieces(3)
    shared_table("b", SCHEMA, pieces)  # others need not wait
    assert pieces.asked == 1
    assert waiting.poll() is None
    end(writer)
    assert [said(waiting), said(waiting)] == ["WRITES", "HAS 50 1"]
    end(waiting, signal.SIGTERM)


@shares
def test_a_note_that_lies_leads_nowhere(folder: Path):
    """A number that now belongs to another file, a process that never was, and no note at all."""
    table = shared_table("a", SCHEMA, Pieces(4))
    (note,) = notes(folder)
    process, number, device, inode = note.read_text().split()
    (folder / "other").write_bytes(b"x" * 99)
    with open(folder / "other", "rb") as other:
        found = os.fstat(other.fileno())
        lies = [
            f"{process} {other.fileno()} {device} {inode}",
            f"{process} {other.fileno()} {found.st_dev} {found.st_ino}",
            f"{2**22 + 1} {number} {device} {inode}",
            "no numbers at all",
        ]
        for lie in lies:
            note.write_text(f"{lie}\n")
            pieces = Pieces(4)
            assert shared_table("a", SCHEMA, pieces).equals(table)
            assert pieces.asked == 1


def test_without_proc_everyone_writes(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setattr(module, "_PROCESSES", folder / "nowhere")
    pieces = Pieces(5)
    tables = [shared_table("a", SCHEMA, pieces) for _ in range(2)]
    assert pieces.asked == 2
    assert tables[0].equals(tables[1])


def test_a_folder_that_others_can_write_to_is_refused(folder: Path):
    place = folder / f"gcdis-rows-{os.getuid()}"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(StorageError, match="this user alone"):
        shared_table("a", SCHEMA, Pieces(1))
    place.rmdir()
    place.symlink_to(folder)
    with pytest.raises(StorageError, match="this user alone"):
        shared_table("a", SCHEMA, Pieces(1))


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fdopen", lambda *args, **options: Full())
        with pytest.raises(StorageError, match="No space left") as caught:
            shared_table("a", SCHEMA, Pieces(5))
    assert "TMPDIR" in str(caught.value)
    pieces = Pieces(5)
    assert shared_table("a", SCHEMA, pieces).num_rows == 5
    assert pieces.asked == 1


def test_what_the_making_of_rows_meets_is_not_called_a_lack_of_room(folder: Path):
    def broken() -> Iterator[pa.Table]:
        yield next(Pieces(5)())
        raise TimeoutError("the source does not answer")

    with pytest.raises(TimeoutError, match="the source"):
        shared_table("a", SCHEMA, broken)
    assert shared_table("a", SCHEMA, Pieces(5)).num_rows == 5
