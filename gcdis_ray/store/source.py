"""Where the user's data lies: a folder that is read and never written.

Everything that ingest reads (images, annotation files, lists) goes through one of these, so that a
data set can lie on a disk or in a bucket. Names are ``/``-separated and relative; they cannot climb
out of the folder. A bucket is read by streams that fetch what their reader asks for.

A file that is not there, or cannot be read, is an OSError, which ingest counts; a service that
cannot be reached is a StorageError, which nobody counts: an outage must not change a result.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from gcdis_ray.errors import DataError
from gcdis_ray.store.folder_walk import Entry, is_below, real_names, walk
from gcdis_ray.store.meter import count
from gcdis_ray.store.s3 import Prefix, service_endpoint

_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class FileState:
    """What tells whether a file has changed without reading it."""

    num_bytes: int
    changed: str  # time of change or ETag: equal for equal contents, in practice


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

    def head(self, name: str, num_bytes: int) -> bytes:
        """The first bytes of the file; fewer if it has fewer. Raises as :meth:`read`."""
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
        """Every file below ``folder``, relative to it, in no order of its own, and what there is
        that does not open. Links to folders are followed, also out of the source, but not to those
        that they lie in; a folder that several of them lead to is listed once."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Those that open."""
        ...

    def outside(self, folder: str) -> Iterator[str]:
        """Those that open and lie out of the source, behind links."""
        ...

    def real_names(self, names: Iterable[str]) -> Iterator[str]:
        """What each name opens, without links: equal for two names of one file."""
        ...

    def states(self, folder: str, *, listed: bool = False) -> Iterator[tuple[str, FileState]]:
        """:meth:`names` with their states, and links to folders with where they lead: of a bucket
        by listing it, a thousand at a time.

        Args:
            listed: files are named elsewhere, and may be by way of any link inside the source.
        """
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


def _opened(path: str, flags: int) -> int:
    """A file as :meth:`LocalFolder.state` knows it: pipes and devices are none, nor waited for."""
    found = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(found).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # a folder is refused by who reads
        return found
    os.close(found)
    raise FileNotFoundError(errno.ENOENT, "a pipe or device, no file", path)


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
        return io.BufferedReader(_Counted(self._at(name), opener=_opened))

    def read(self, name: str) -> bytes:
        with _Counted(self._at(name), opener=_opened) as file:
            return file.readall()

    def head(self, name: str, num_bytes: int) -> bytes:
        with _Counted(self._at(name), opener=_opened) as file:
            return file.read(num_bytes) or b""

    def state(self, name: str) -> FileState | None:
        return _state(self._at(name))

    def has_folder(self, name: str) -> bool:
        return os.path.isdir(self._at(name))  # no error if the name is too long to be one

    def entries(self, folder: str) -> Iterator[Entry]:
        found = walk(self.root, str(self._at(folder)))
        return (entry for entry in found if entry.kind != "link to a folder")

    def names(self, folder: str) -> Iterator[str]:
        return (entry.name for entry in self.entries(folder) if entry.kind == "file")

    def outside(self, folder: str) -> Iterator[str]:
        base = self._at(folder)
        for entry in self.entries(folder):
            if entry.kind == "file" and (
                entry.outside or (entry.is_link and self._leaves(base / entry.name))
            ):
                yield entry.name

    def _leaves(self, path: Path) -> bool:
        return not is_below(os.path.realpath(path), os.path.realpath(self.root))

    def real_names(self, names: Iterable[str]) -> Iterator[str]:
        return real_names(self.root, names)

    def states(self, folder: str, *, listed: bool = False) -> Iterator[tuple[str, FileState]]:
        base = self._at(folder)
        for entry in walk(self.root, str(base), upward=listed):
            path = base / entry.name
            if entry.kind == "link to a folder":
                yield entry.name, FileState(0, f"to {self._target(path)}")
            elif entry.kind == "file" and (state := _listed_state(path)) is not None:
                yield entry.name, state

    def _target(self, link: Path) -> str:
        """Where a link leads in the end; if that is in the folder, wherever the folder is."""
        real = os.path.realpath(link)
        return real if self._leaves(link) else os.path.relpath(real, os.path.realpath(self.root))


def _listed_state(path: Path) -> FileState | None:
    """Raises DataError if what has been listed cannot be looked at."""
    try:
        return _state(path)
    except OSError as error:
        raise DataError(
            f"cannot be looked at ({error.strerror})",
            where=str(path),
            fix="let it be read, or move it out of the data folder",
        ) from error


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

    def head(self, name: str, num_bytes: int) -> bytes:
        return self.place.read_part(checked_name(name, self.uri), 0, num_bytes)

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
        return (Entry(name, version=state.changed) for name, state in self.states(folder))

    def names(self, folder: str) -> Iterator[str]:
        return (name for name, _ in self.states(folder))

    def outside(self, folder: str) -> Iterator[str]:
        return iter(())

    def real_names(self, names: Iterable[str]) -> Iterator[str]:
        return iter(names)

    def states(self, folder: str, *, listed: bool = False) -> Iterator[tuple[str, FileState]]:
        folder = checked_name(folder, self.uri)
        start = len(folder) + 1 if folder else 0
        return (
            (found.path[start:], FileState(found.num_bytes, found.etag))
            for found in self.place.objects(folder)
        )
