"""Tables that the processes of one machine share: written by the first that asks, mapped by others.

A training worker looks at any row at any time, and every worker of a node at the same rows. So they
lie once per node, in a file that all of them map. Of a file on disk the system can drop pages and
read them again.

The file has no name: it is gone when the last process that has it ends, however it ends. The others
find it by a note in a folder of this user's, below the temporary folder (``TMPDIR``): which process
has it open, and under which number; through that process they open it, too. A note is locked while
it is looked at and while its file is written: whoever comes meanwhile waits, and writes itself if
the writer dies. Notes are a line a process; one that leads nowhere is removed by whoever looks or
leaves next. Where processes cannot open one another's files (no ``/proc``, or it says no), each
writes its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.errors import StorageError

_PROCESSES = Path("/proc")
Pieces = Callable[[], Iterable[pa.Table]]


def shared_table(
    name: str, schema: pa.Schema, pieces: Pieces, *, in_memory: bool = False
) -> pa.Table:
    """The rows of all pieces; none is copied into memory of this process's own.

    Args:
        name: stands for the rows: processes that give the same name would make the same rows.
        pieces: makes the rows; called if no process of this machine has them.
        in_memory: in memory that is not on disk, where processes can share such (Linux).

    Raises:
        StorageError: no room for the file, or no folder of this user's alone for the note.
        What ``pieces`` raises comes as it is.
    """
    digest = hashlib.sha256(f"{name} {in_memory}".encode()).digest()
    try:
        if (_PROCESSES / "self/fd").is_dir():
            return _mapped(_found_or_written(digest, schema, pieces, in_memory))
        return _mapped(_written(digest, schema, pieces, in_memory))
    except _NotMade as error:
        raise error.why from None
    except OSError as error:
        raise StorageError(
            f"cannot keep rows at hand there ({error.strerror or error})",
            where=tempfile.gettempdir(),
            fix="free space there, point TMPDIR elsewhere, or raise cache_mb if memory allows",
        ) from error


class _NotMade(Exception):
    """What the making of rows met: nothing that the file they go to could help."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


def _made(pieces: Pieces) -> Iterator[pa.Table]:
    try:
        yield from pieces()
    except OSError as error:
        raise _NotMade(error) from error


class RandomRows:
    """Single rows of a table of many chunks, in any order."""

    def __init__(self, table: pa.Table) -> None:
        self._batches = [batch for batch in table.to_batches() if batch.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def places(self, rows_N: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Batch, and row in it, of each row."""
        batch_N = np.searchsorted(self._starts, rows_N, side="right") - 1
        return zip(batch_N.tolist(), (rows_N - self._starts[batch_N]).tolist(), strict=True)

    def column(self, name: str) -> list[pa.Array]:
        """A column, batch by batch."""
        return [batch.column(name) for batch in self._batches]

    def values(self, name: str, rows_N: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Of a binary column: views of the table."""
        column = self.column(name)
        return [
            np.frombuffer(column[batch][row].as_buffer(), np.uint8)
            for batch, row in self.places(rows_N)
        ]


def _written(digest: bytes, schema: pa.Schema, pieces: Pieces, in_memory: bool) -> int:
    """A file without a name: all rows, then the digest of what they are called."""
    if in_memory and hasattr(os, "memfd_create"):
        file = os.memfd_create("gcdis-rows")
    else:
        with tempfile.TemporaryFile(prefix="gcdis-rows-") as made:
            file = os.dup(made.fileno())
    try:
        with os.fdopen(file, "wb", closefd=False) as stream:
            with pa.ipc.new_file(pa.PythonFile(stream, "w"), schema) as writer:
                for piece in _made(pieces):
                    writer.write_table(piece.combine_chunks())
            stream.seek(0, os.SEEK_END)
            stream.write(digest)
    except BaseException:
        os.close(file)
        raise
    return file


def _mapped(file: int) -> pa.Table:
    """The rows of a file, which stays open while they are in use."""
    mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    weakref.finalize(mapped, _let_go, file)
    mapped.madvise(mmap.MADV_RANDOM)  # no read-ahead
    rows = pa.py_buffer(mapped).slice(0, len(mapped) - hashlib.sha256().digest_size)
    return pa.ipc.open_file(pa.BufferReader(rows)).read_all()


def _let_go(file: int) -> None:
    os.close(file)
    with suppress(OSError, StorageError):
        _remove_void(_folder())


# ---------------------------------------------------------------- notes


class _Holder(NamedTuple):
    """A process that has a file open: its number, the file's number in it, and which file it is."""

    process: int
    number: int
    device: int
    inode: int

    def open(self, digest: bytes) -> int | None:
        """The file with that digest, opened anew; None if the process no longer has it."""
        path = _PROCESSES / f"{self.process}/fd/{self.number}"
        try:
            if not self._is(path.stat()):
                return None
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        found = os.fstat(file)
        if self._is(found) and os.pread(file, 99, found.st_size - len(digest)) == digest:
            return file
        os.close(file)
        return None

    def _is(self, found: os.stat_result) -> bool:
        same = (found.st_dev, found.st_ino) == (self.device, self.inode)
        return same and stat.S_ISREG(found.st_mode)


def _found_or_written(digest: bytes, schema: pa.Schema, pieces: Pieces, in_memory: bool) -> int:
    folder = _folder()
    _remove_void(folder)
    with _locked(folder / digest.hex()) as note:
        holders = _holders(note)
        file = _opened(holders, digest)
        if file is None:
            holders, file = [], _written(digest, schema, pieces, in_memory)
        found = os.fstat(file)
        holders.append(_Holder(os.getpid(), file, found.st_dev, found.st_ino))
        os.ftruncate(note, 0)
        os.pwrite(note, "".join(f"{' '.join(map(str, h))}\n" for h in holders).encode(), 0)
    return file


def _folder() -> Path:
    """Where notes are: nobody else can leave one there."""
    folder = Path(tempfile.gettempdir(), f"gcdis-rows-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(
            "not a folder that this user alone can write to",
            where=str(folder),
            fix="remove it, or point TMPDIR elsewhere",
        )
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The note at a path, made if there is none, locked until the end of this or of the process."""
    while True:
        note = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(note, fcntl.LOCK_EX)
            if _is_at(path, note):  # it was not removed while we waited
                yield note
                return
        finally:
            os.close(note)


def _remove_void(folder: Path) -> None:
    """Remove notes that lead nowhere. Those in use by others are left alone."""
    for path in list(folder.iterdir()):
        with suppress(OSError, ValueError):  # locked, removed by another, or none of ours
            digest, note = bytes.fromhex(path.name), os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file = _opened(_holders(note), digest)
                if file is not None:
                    os.close(file)
                elif _is_at(path, note):
                    path.unlink()
            finally:
                os.close(note)


def _is_at(path: Path, note: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(note))
    except FileNotFoundError:
        return False


def _holders(note: int) -> list[_Holder]:
    lines = os.pread(note, 1 << 20, 0).decode("ascii", "replace").splitlines()
    words = [line.split() for line in lines]
    return [_Holder(*map(int, w)) for w in words if len(w) == 4 and all(map(str.isdigit, w))]


def _opened(holders: list[_Holder], digest: bytes) -> int | None:
    return next((file for h in holders if (file := h.open(digest)) is not None), None)
