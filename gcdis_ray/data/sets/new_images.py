"""Images that nothing annotates, to apply a model to: those of a folder, of a list, or one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.data.images.folder_images import LeftOut, image_names
from gcdis_ray.data.sets.present import Names
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import FileState, SourceFolder, source_file, source_folder
from gcdis_ray.training.plan import Progress
from gcdis_ray.words import counted, printed

_ROWS_AT_ONCE = 16_384
_READERS, _PART = 8, 64  # threads, and files that one of them takes at a time
_EXAMPLES = 3
_LIST = ".txt"


@dataclass(frozen=True)
class NewImages:
    """Image files by name. They take some hundred bytes each.

    Args:
        folder: that their names are relative to.
        names: large_string, rising as bytes, each once.
        listed: a list names them; else they are what a folder holds.
        repeated: lines of the list that name a file again.
        left_out: what else the folder holds.
    """

    folder: SourceFolder
    names: pa.ChunkedArray
    listed: bool
    repeated: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.names)

    def iter_names(self) -> Iterator[str]:
        for chunk in self.names.chunks:
            for start in range(0, len(chunk), _ROWS_AT_ONCE):
                yield from chunk.slice(start, _ROWS_AT_ONCE).to_pylist()

    def digest(
        self, kind: Literal["content", "stat"], show: Callable[[Progress], None], where: str
    ) -> str:
        """What tells whether they have changed: by what the files say, or by their sizes and times
        of change.

        Raises:
            DataError: files that are listed are not there, or cannot be looked at.
        """
        found = self._contents(show) if kind == "content" else self._states()
        total, count, missing = 0, 0, list[str]()
        for name, said in found:
            count += 1
            show(Progress(count, len(self), "images looked at"))
            if said is None:
                missing.append(name)
                continue
            line = f"{name} {said}".encode()
            total += int.from_bytes(hashlib.sha256(line).digest(), "big")  # in whatever order
        if missing and self.listed:
            shown = ", ".join(map(printed, missing[:_EXAMPLES]))
            verb = "is" if len(missing) == 1 else "are"
            raise DataError(
                f"{len(missing):,} of {counted(len(self), 'listed image')} {verb} not there, or "
                f"may not be read: {shown}" + (" ..." if len(missing) > _EXAMPLES else ""),
                where=where,
                fix=f"names are relative to the list's folder, here {self.folder.uri}",
            )
        return f"{count} {total % 2**256:064x}"

    def _states(self) -> Iterator[tuple[str, str | None]]:
        if self.listed:
            yield from _side_by_side(self._state, self.iter_names())
            return
        wanted = Names(self.iter_names())
        for name, state in self.folder.states("."):
            if name in wanted:
                yield name, _told(state)

    def _state(self, name: str) -> str | None:
        try:
            return _told(self.folder.state(name))
        except OSError:
            return None

    def _contents(self, show: Callable[[Progress], None]) -> Iterator[tuple[str, str | None]]:
        return _side_by_side(self._content, self.iter_names())

    def _content(self, name: str) -> str | None:
        try:
            with self.folder.open(name) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        except OSError:
            return None


def find_images(images: str, endpoint: str | None, where: str) -> NewImages:
    """What a path or address means.

    Args:
        images: a folder or ``s3://bucket/prefix``: every image file below it; a ``.txt`` file: a
            name a line, relative to the list's folder, absolute, or an address; else an image file.
        endpoint: of a service for ``s3://``.
        where: the config key.

    Raises:
        DataError: nothing is there, no image is among it, or a list that cannot be read.
        StorageError: the place cannot be reached.
    """
    if not images.endswith(_LIST):
        folder = source_folder(images, endpoint, where)
        if folder.has_folder("."):
            return _in_folder(folder, where)
    folder, name = source_file(images, endpoint, where)
    try:
        there = name and folder.state(name)
    except OSError as error:
        raise DataError(
            f"cannot be looked at ({error.strerror})", where=where, fix="let it be read"
        ) from error
    if not there:
        raise DataError(
            f"no such folder or file: {images}",
            where=where,
            fix="give a folder of images, a .txt file that lists them, or s3://bucket/prefix",
        )
    if images.endswith(_LIST):
        return _in_list(folder, name, endpoint, where)
    return NewImages(folder, _column([name]), listed=True)


def _in_folder(folder: SourceFolder, where: str) -> NewImages:
    left_out = LeftOut()
    names = _column(image_names(folder, ".", left_out))
    if not len(names):
        others = f", but {left_out.describe()}" if left_out.total else ""
        raise DataError(
            f"no image file in {folder.uri}{others}",
            where=where,
            fix="give a folder with JPEG, PNG or WebP files that may be read",
        )
    return NewImages(folder, names.take(pc.sort_indices(names)), False, left_out=left_out)  # pyright: ignore[reportAttributeAccessIssue]


def _in_list(folder: SourceFolder, name: str, endpoint: str | None, where: str) -> NewImages:
    place = f"{folder.uri}/{name}"
    try:
        lines = folder.read(name).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError("a list of names is text in UTF-8", where=place) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=place) from error
    full = [_full(folder.uri, line.strip()) for line in lines if line.strip()]
    if not full:
        raise DataError("it lists no image", where=place, fix="write a name a line")
    root = _common(folder.uri, full, place)
    found = _column(path[len(root) + (not root.endswith("/")) :] for path in full)
    names = pc.unique(found)  # pyright: ignore[reportAttributeAccessIssue]
    names = names.take(pc.sort_indices(names))  # pyright: ignore[reportAttributeAccessIssue]
    column = pa.chunked_array([names], pa.large_string())
    return NewImages(
        source_folder(root, endpoint, where), column, True, repeated=len(found) - len(names)
    )


def _full(base: str, line: str) -> str:
    if "://" in line:
        return line
    if base.startswith("s3://"):
        return f"{base}/{line}"
    return os.path.normpath(os.path.join(base, os.path.expanduser(line)))


def _common(base: str, full: list[str], place: str) -> str:
    """The folder that all lie in: that of the list if it is one."""
    if all(path.startswith(f"{base}/") for path in full):
        return base
    addresses = [path.startswith("s3://") for path in full]
    parents = [path.removeprefix("s3://").rpartition("/")[0] for path in full]
    common = ""
    if all(addresses) or not any("://" in path for path in full):
        common = os.path.commonpath(parents) if all(parents) else "/"
    if not common or (any(addresses) and common == "/"):
        raise DataError(
            "it lists files of several places",
            where=place,
            fix="make a list for each bucket, and one for files of this machine",
        )
    return f"s3://{common}" if any(addresses) else common


def _column(names: Iterable[str]) -> pa.ChunkedArray:
    rest, chunks = iter(names), []
    while some := list(islice(rest, _ROWS_AT_ONCE)):
        chunks.append(pa.array(some, pa.large_string()))
    return pa.chunked_array(chunks, pa.large_string())


def _side_by_side(
    look: Callable[[str], str | None], names: Iterator[str]
) -> Iterator[tuple[str, str | None]]:
    def look_at_all(part: list[str]) -> list[str | None]:
        return [look(name) for name in part]

    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(islice(names, _ROWS_AT_ONCE)):
            parts = [some[at : at + _PART] for at in range(0, len(some), _PART)]
            tasks = [pool.submit(copy_context().run, look_at_all, part) for part in parts]
            for part, task in zip(parts, tasks, strict=True):
                yield from zip(part, task.result(), strict=True)


def _told(state: FileState | None) -> str | None:
    return f"{state.num_bytes}:{state.changed}" if state else None
