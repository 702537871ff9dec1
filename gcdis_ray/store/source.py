"""Where the user's data lies: a folder that is read and never written.

Everything that ingest reads (images, annotation files, lists) goes through one of these, so that a
data set can lie on a disk or in a bucket. Names are ``/``-separated and relative; they cannot climb
out of the folder. A bucket is read by streams that fetch what their reader asks for.

A file that is not there, or cannot be read, is an OSError, which ingest counts; a service that
cannot be reached is a StorageError, which nobody counts: an outage must not change a result.
"""

from __future__ import annotations

import errno
import heapq
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

from gcdis_ray.errors import DataError
from gcdis_ray.store.meter import count
from gcdis_ray.store.s3 import Prefix, service_endpoint

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class FileState:
    """What tells whether a file has changed without reading it."""

    num_bytes: int
    changed: str  # time of change or ETag: equal for equal contents, in practice


class Entry(NamedTuple):
    """A file of a listing.

    Args:
        opens: False for a link that leads nowhere.
        outside: it lies in another place, behind a link to a folder out of the source.
    """

    name: str
    opens: bool = True
    outside: bool = False


class SourceFolder(Protocol):
    """Pickles to workers. All methods raise DataError for a name that leaves the folder, and
    StorageError if the place cannot be reached."""

    @property
    def uri(self) -> str: ...
    def open(self, name: str) -> BinaryIO:
        """A buffered stream from the start of the file. Raises FileNotFoundError, OSError."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError, OSError."""
        ...

    def state(self, name: str) -> FileState | None:
        """None if there is no such file."""
        ...

    def has_folder(self, name: str) -> bool: ...
    @property
    def has_aliases(self) -> bool:
        """Whether a file may open by other names than :meth:`names` gives: behind a second link, or
        where letters of two cases are one."""
        ...

    def entries(self, folder: str) -> Iterator[Entry]:
        """Every file below ``folder``, relative to it, in no order of its own. Links to folders are
        followed, also out of the source; one that several of them lead to is listed once."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Those that open."""
        ...

    def states(self, folder: str) -> Iterator[tuple[str, FileState]]:
        """The same, with their states: of a bucket by listing it, a thousand at a time."""
        ...


def source_folder(uri: str, endpoint: str | None = None, where: str = "root") -> SourceFolder:
    """The folder at a path, or below ``s3://bucket/prefix``, without a look at it.

    Args:
        endpoint: URL of an S3-compatible service; ``AWS_ENDPOINT_URL`` if not given. Credentials
            come from the environment, the usual files or the machine's role.
        where: the config key that holds ``uri``.

    Raises:
        DataError: it can be none. StorageError: the endpoint is no URL.
    """
    scheme, mark, rest = uri.rpartition("://")
    if scheme == "s3":
        location = "s3://" + rest.strip("/")
        beside = f"{where[: where.rfind('.') + 1]}endpoint"  # the key of it, next to the uri's
        place = Prefix(location, service_endpoint(endpoint, beside))
        if not place.bucket:
            raise DataError(f"no bucket in {uri}", where=where, fix="use s3://bucket/prefix")
        return S3Folder(place)
    if mark:
        raise DataError(
            f"unknown scheme {scheme!r} in {uri}", where=where, fix="use a folder or s3://..."
        )
    return LocalFolder(str(Path(uri).expanduser().absolute()))  # workers may stand elsewhere


def open_source(uri: str, endpoint: str | None = None, where: str = "root") -> SourceFolder:
    """:func:`source_folder` of the data set. Raises DataError too if there is no such folder."""
    folder = source_folder(uri, endpoint, where)
    if not folder.has_folder("."):
        raise DataError(
            f"no such folder: {folder.uri}",
            where=where,
            fix="set it to your data folder, or to s3://bucket/prefix",
        )
    return folder


def source_file(
    uri: str, endpoint: str | None = None, where: str = "root"
) -> tuple[SourceFolder, str]:
    """A file that is named on its own: its folder, and its name there. Arguments and errors as of
    :func:`source_folder`."""
    scheme, mark, rest = uri.rpartition("://")
    path = PurePosixPath(rest)
    return source_folder(f"{scheme}{mark}{path.parent}", endpoint, where), path.name


def checked_name(name: str, folder: str) -> str:
    """``name`` without ``.`` and double slashes; DataError if it leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(ord(letter) < 32 for letter in name):
        raise DataError(
            f"the name {name[:80]!r} leaves the folder",
            where=folder,
            fix="use names relative to the folder, without '..'",
        )
    return "" if path == PurePosixPath(".") else str(path)


class _Counted(io.FileIO):
    """A file that counts what is read of it."""

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        count(read_bytes=size)
        return size

    def readall(self) -> bytes:
        data = super().readall() or b""
        count(read_bytes=len(data))
        return data


def _walk(root: str, base: str) -> Iterator[Entry]:
    """Every file below the folder ``base`` of the source ``root``.

    Each folder is listed once, however many links lead to it: by its own name, else by the first
    link. So circles end, and no file is there twice. Links lead wherever their owner wanted.

    Raises:
        DataError: a folder cannot be listed.
    """
    seen: set[str] = set()  # real paths of folders
    folders = [("", os.path.realpath(base))]
    links: list[str] = []  # a heap: followed when no folder is left, in the order of names
    home = os.path.join(os.path.realpath(root), "")
    while folders or links:
        if folders:
            at, real = folders.pop()
        else:
            at = heapq.heappop(links)
            real = os.path.realpath(os.path.join(base, at))
        if real in seen:
            continue
        seen.add(real)
        outside = not os.path.join(real, "").startswith(home)
        for entry in _entries(real):
            name = f"{at}/{entry.name}" if at else entry.name
            is_folder, opens = _kind(entry)
            if is_folder and entry.is_symlink():
                heapq.heappush(links, name)
            elif is_folder:
                folders.append((name, os.path.join(real, entry.name)))
            elif opens or entry.is_symlink():  # no pipe, no device
                yield Entry(name, opens, outside)


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(
            f"the folder cannot be listed ({error.strerror})",
            where=place,
            fix="let it be read, or move it out of the data folder",
        ) from error


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether it is a folder, and whether it is a file."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False, False


@dataclass(frozen=True)
class LocalFolder:
    root: str

    @property
    def uri(self) -> str:
        return self.root

    @property
    def has_aliases(self) -> bool:
        return True

    def _at(self, name: str) -> Path:
        return Path(self.root, checked_name(name, self.root))

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_Counted(self._at(name)))

    def read(self, name: str) -> bytes:
        with _Counted(self._at(name)) as file:
            return file.readall()

    def state(self, name: str) -> FileState | None:
        return _state(self._at(name))

    def has_folder(self, name: str) -> bool:
        return os.path.isdir(self._at(name))  # no error if the name is too long to be one

    def entries(self, folder: str) -> Iterator[Entry]:
        return _walk(self.root, str(self._at(folder)))

    def names(self, folder: str) -> Iterator[str]:
        return (entry.name for entry in self.entries(folder) if entry.opens)

    def states(self, folder: str) -> Iterator[tuple[str, FileState]]:
        base = self._at(folder)
        for name in self.names(folder):
            if (state := _state(base / name)) is not None:
                yield name, state


def _state(path: Path) -> FileState | None:
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in _NO_SUCH_FILE:
            return None
        raise
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileState(status.st_size, str(status.st_mtime_ns))


@dataclass(frozen=True)
class S3Folder:
    place: Prefix

    @property
    def uri(self) -> str:
        return self.place.location

    def open(self, name: str) -> BinaryIO:
        return self.place.open(checked_name(name, self.uri))

    def read(self, name: str) -> bytes:
        return self.place.read(checked_name(name, self.uri))

    def state(self, name: str) -> FileState | None:
        try:
            found = self.place.head(checked_name(name, self.uri))
        except FileNotFoundError:
            return None
        return FileState(found.num_bytes, found.etag)

    def has_folder(self, name: str) -> bool:
        return self.place.has_any(checked_name(name, self.uri))

    @property
    def has_aliases(self) -> bool:
        return False

    def entries(self, folder: str) -> Iterator[Entry]:
        return map(Entry, self.names(folder))

    def names(self, folder: str) -> Iterator[str]:
        return (name for name, _ in self.states(folder))

    def states(self, folder: str) -> Iterator[tuple[str, FileState]]:
        folder = checked_name(folder, self.uri)
        start = len(folder) + 1 if folder else 0
        return (
            (found.path[start:], FileState(found.num_bytes, found.etag))
            for found in self.place.objects(folder)
        )
