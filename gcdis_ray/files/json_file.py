"""JSON files that are one list of records, or an object with such lists at its top.

Files of any size are read as streams of records, with bounded memory. A file that is small enough
may instead be parsed at once, which takes a third of the time and memory in proportion to the file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gcdis_ray.errors import DataError
from gcdis_ray.files.encoding import Utf8File
from gcdis_ray.files.json_outline import Outline, named_errors, place, read_outline
from gcdis_ray.store.source import FileState, LocalFolder, SourceFolder

MAX_PARSED_BYTES = 256 << 20


class JsonLists(ABC):
    """The lists at the top of a JSON file.

    Args:
        path: what to call it in errors.
        fix: what to do if a list is not there.
        keys: names at its top.
        lists: those of them that are lists, with numbers of entries; "" if the file is one list.
    """

    def __init__(
        self, path: str, fix: str | None, keys: Collection[str], lists: Mapping[str, int]
    ) -> None:
        self.path, self.fix, self.keys, self.lists = path, fix, keys, lists

    def records(self, section: str = "") -> Iterator[dict[str, Any]]:
        """The objects of a top-level list, one at a time; stops reading where the list ends.

        Raises:
            DataError: there is no such list, or an entry of it is no object.
        """
        if section not in self.lists:
            what = f"no {section!r} in it"
            if section in self.keys:
                what = f"{section!r} is no list"
            elif not section:
                what = "is no list"
            raise DataError(what, where=self.path, fix=self.fix)
        if not self.lists[section]:
            return
        for position, raw in enumerate(self._entries(section)):
            if not isinstance(raw, dict):
                raise DataError(
                    f"a record must be an object, not {type(raw).__name__}",
                    where=self.place(section, position),
                )
            yield raw
            if position + 1 == self.lists[section]:
                return

    @abstractmethod
    def _entries(self, section: str) -> Iterator[Any]: ...

    def place(self, section: str, position: int) -> str:
        return place(self.path, section, position)


class JsonFile(JsonLists):
    """A file that is read as a stream, after a look at all of it.

    Raises:
        DataError: missing or unreadable file; else see :func:`read_outline`.
    """

    def __init__(self, folder: SourceFolder, name: str, fix: str | None = None) -> None:
        self.folder, self.name = folder, name
        path = f"{folder.uri}/{name}"
        with named_errors(path, fix):
            state = folder.state(name)
        self.outline = _outline(folder, name, state)
        super().__init__(path, fix, self.outline.keys, self.outline.lists)

    def items(self, prefix: str) -> Iterator[Any]:
        """Every value at a prefix as ijson writes it, such as ``images.item.id``."""
        import ijson

        with named_errors(self.path, self.fix), self.folder.open(self.name) as file:
            yield from ijson.items(Utf8File(file, self.path), prefix, use_float=True)

    def _entries(self, section: str) -> Iterator[Any]:
        return self.items(f"{section}.item" if section else "item")


@lru_cache(maxsize=32)  # the same file serves several sets and stages
def _outline(folder: SourceFolder, name: str, state: FileState | None) -> Outline:
    path = f"{folder.uri}/{name}"
    with named_errors(path), folder.open(name) as file:
        return read_outline(file, path)


class ParsedFile(JsonLists):
    """The content of a file with an object, in memory."""

    def __init__(self, path: str, content: Mapping[str, Any], fix: str | None = None) -> None:
        lists = {name: len(held) for name, held in content.items() if isinstance(held, list)}
        super().__init__(path, fix, content.keys(), lists)
        self._content = content

    def _entries(self, section: str) -> Iterator[Any]:
        return iter(self._content[section])


def stream(path: Path, fix: str | None = None) -> JsonFile:
    """A file on this machine. Raises DataError as :class:`JsonFile`."""
    return JsonFile(LocalFolder(str(Path(path).parent)), Path(path).name, fix)


def open_lists(path: Path, fix: str | None = None) -> JsonLists:
    """A file on this machine, parsed if it is small. One that is no object or broken is streamed
    whatever its size, for the mistake to be named: DataError as :class:`JsonFile`."""
    try:
        if Path(path).stat().st_size > MAX_PARSED_BYTES:
            return stream(path, fix)
        text = Path(path).read_text("utf-8-sig")
        content = json.loads(text, parse_int=_int64, parse_constant=_no_number)
    except (OSError, ValueError, RecursionError):
        return stream(path, fix)
    return ParsedFile(str(path), content, fix) if isinstance(content, dict) else stream(path, fix)


def _int64(text: str) -> int:
    """The numbers that a stream can give."""
    value = int(text)
    if -(1 << 63) <= value < 1 << 63:
        return value
    raise ValueError("more than 64 bits")


def _no_number(text: str) -> float:
    raise ValueError(text)
