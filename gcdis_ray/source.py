"""Where the user's data lies: a folder that is read and never written.

Everything that ingest reads (images, annotation files, lists) goes through one of these, so that a
data set can lie on a disk or in a bucket. Names are ``/``-separated and relative; they cannot climb
out of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from gcdis_ray.errors import DataError


@dataclass(frozen=True)
class FileState:
    """What tells whether a file has changed without reading it."""

    num_bytes: int
    changed: str  # time of change or ETag: equal for equal contents, in practice


class SourceFolder(Protocol):
    """Pickles to workers."""

    @property
    def uri(self) -> str: ...
    def open(self, name: str) -> BinaryIO:
        """A stream from the start of the file. Raises FileNotFoundError, OSError."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError, OSError."""
        ...

    def state(self, name: str) -> FileState | None:
        """None if there is no such file."""
        ...

    def has_folder(self, name: str) -> bool: ...
    def names(self, folder: str) -> Iterator[str]:
        """Every file below ``folder``, relative to it, in no order of its own."""
        ...


def open_source(uri: str) -> SourceFolder:
    """The folder at a path.

    Raises:
        DataError: there is none.
    """
    root = Path(uri).expanduser().absolute()  # workers may stand elsewhere
    if not root.is_dir():
        raise DataError(
            f"no such folder: {root}", where="stages.ingest.root", fix="set it to your data folder"
        )
    return LocalFolder(str(root))


@dataclass(frozen=True)
class LocalFolder:
    root: str

    @property
    def uri(self) -> str:
        return self.root

    def open(self, name: str) -> BinaryIO:
        return Path(self.root, name).open("rb")

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def state(self, name: str) -> FileState | None:
        path = Path(self.root, name)
        if not path.is_file():
            return None
        status = path.stat()
        return FileState(status.st_size, str(status.st_mtime_ns))

    def has_folder(self, name: str) -> bool:
        return Path(self.root, name).is_dir()

    def names(self, folder: str) -> Iterator[str]:
        base = Path(self.root, folder)
        for place, _, files in os.walk(base):
            for file in files:
                yield Path(place, file).relative_to(base).as_posix()
