"""JSON files of any size as streams of records, with memory bounded whatever the file says.

A file is looked through once when it is opened: whether it is whole, how deep it nests, how long
its tokens and records are, which lists it holds. After that its records can be built without fear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, BinaryIO

from gcdis_ray.errors import DataError
from gcdis_ray.source import FileState, SourceFolder

MAX_DEPTH = 32  # annotations need 5; the parser's memory grows with the square of the depth
MAX_TOKEN_BYTES = 4 << 20  # a string or a number; run-length masks are the longest
MAX_RECORD_BYTES = 64 << 20
_MAX_KEYS = 10_000
_CHUNK_BYTES = 1 << 16
_STEPS = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}  # in depth


@dataclass(frozen=True)
class Outline:
    """What a file holds at its top."""

    keys: frozenset[str]
    lists: Mapping[str, int]  # top-level list -> number of entries; "" if the file is one list
    first: Mapping[str, Mapping[str, Any]]  # of each such list: plain fields of the first entry


class JsonFile:
    """A JSON file that is one list of records, or an object with such lists at its top.

    Raises:
        DataError: missing or unreadable file, no JSON, cut off, nested absurdly, a token or record
            of absurd length, two lists of one name.
    """

    def __init__(self, folder: SourceFolder, name: str, fix: str | None = None) -> None:
        self.folder, self.name, self.fix = folder, name, fix
        self.path = f"{folder.uri}/{name}"
        with _named_errors(self.path, fix):
            state = folder.state(name)
        self.outline = _outline(folder, name, state)

    def records(self, section: str = "") -> Iterator[dict[str, Any]]:
        """The objects of a top-level list, one at a time; stops reading where the list ends.

        Raises:
            DataError: there is no such list, or an entry of it is no object.
        """
        if section not in self.outline.lists:
            what = f"no {section!r} in it"
            if section in self.outline.keys:
                what = f"{section!r} is no list"
            elif not section:
                what = "is no list"
            raise DataError(what, where=self.path, fix=self.fix)
        if not self.outline.lists[section]:
            return
        for position, raw in enumerate(self.items(f"{section}.item" if section else "item")):
            if not isinstance(raw, dict):
                raise DataError(
                    f"a record must be an object, not {type(raw).__name__}",
                    where=self.place(section, position),
                )
            yield raw
            if position + 1 == self.outline.lists[section]:
                return

    def items(self, prefix: str) -> Iterator[Any]:
        """Every value at a prefix as ijson writes it, such as ``images.item.id``."""
        import ijson

        with _named_errors(self.path, self.fix), self.folder.open(self.name) as file:
            yield from ijson.items(file, prefix, use_float=True)

    def place(self, section: str, position: int) -> str:
        return f"{self.path}: {section}[{position}]"

    def head(self, section: str, count: int) -> list[dict[str, Any]]:
        return list(islice(self.records(section), count))


@lru_cache(maxsize=32)  # the same file serves several sets and stages
def _outline(folder: SourceFolder, name: str, state: FileState | None) -> Outline:
    path = f"{folder.uri}/{name}"
    with _named_errors(path, None), folder.open(name) as file:
        return _Scan(path).read(file)


class _Scan:
    """One pass over the events of a file. ``list_depth`` is the depth at which the entries of a
    top-level list stand: 1 in a file that is a list, else 2; 0 outside of any."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.list_depth = 0
        self.section, self.field = "", ""
        self.is_object = False
        self.in_first = False  # the first entry of a list: its plain fields are kept
        self.entry_start = 0
        self.keys: set[str] = set()
        self.lists: dict[str, int] = {}
        self.first: dict[str, dict[str, Any]] = {}

    def read(self, file: BinaryIO) -> Outline:
        import ijson

        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events, use_float=True)
        depth = total = silent = 0
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            parser.send(chunk)
            silent = 0 if events else silent + len(chunk)
            if silent > MAX_TOKEN_BYTES:
                self._refuse(f"a string or number of more than {MAX_TOKEN_BYTES} bytes")
            for event, value in events:
                step = _STEPS.get(event)
                if step is None:
                    if depth < 3 or self.in_first:  # what is deeper is most of a file
                        self._value(event, value, depth, total)
                    continue
                if step > 0 and depth < 3:
                    self._start(event, depth, total)
                elif step < 0 and depth == self.list_depth:
                    self.list_depth, self.in_first = 0, False
                depth += step
                if depth > MAX_DEPTH:
                    self._refuse(f"nested more than {MAX_DEPTH} deep")
            events.clear()
            total += len(chunk)
            inside = self.list_depth and depth > self.list_depth
            if inside and total - self.entry_start > MAX_RECORD_BYTES:
                self._refuse(f"a record of more than {MAX_RECORD_BYTES} bytes")
        parser.close()
        return Outline(frozenset(self.keys), self.lists, self.first)

    def _start(self, event: str, depth: int, total: int) -> None:
        if depth == 0:
            self.is_object = event == "start_map"
        if self.list_depth:
            self._entry(depth, total)
        elif event == "start_array" and depth == self.is_object:
            self.list_depth = depth + 1
            self.lists[self.section], self.first[self.section] = 0, {}

    def _value(self, event: str, value: Any, depth: int, total: int) -> None:
        if event == "map_key":
            if depth == 1 and self.is_object:
                if value in self.keys:
                    self._refuse(f"more than one {value[:40]!r} in it")
                if len(self.keys) == _MAX_KEYS:
                    self._refuse(f"more than {_MAX_KEYS} keys at its top")
                self.keys.add(value)
                self.section = value
            elif self.in_first and depth == self.list_depth + 1:
                self.field = value
        elif self.in_first and depth == self.list_depth + 1 and self.field:
            self.first[self.section][self.field] = value
        elif self.list_depth:
            self._entry(depth, total)

    def _entry(self, depth: int, total: int) -> None:
        if depth == self.list_depth:
            self.lists[self.section] += 1
            self.in_first = self.lists[self.section] == 1
            self.entry_start, self.field = total, ""

    def _refuse(self, what: str) -> None:
        raise DataError(what, where=self.path)


@contextmanager
def _named_errors(path: str, fix: str | None) -> Iterator[None]:
    import ijson

    try:
        yield
    except FileNotFoundError:
        raise DataError("no such file", where=path, fix="check the path") from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=path) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        said = error.args[0] if error.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        first = (text.strip() or "empty").splitlines()[0]
        if "premature EOF" in first or "ncomplete" in first:
            what = "the file ends in the middle (truncated JSON)"
        elif re.search("NaN|Infinity", text):
            what = "not valid JSON (NaN and Infinity are no JSON numbers)"
        else:
            what = f"not valid JSON ({first[:120]})"
        raise DataError(what, where=path, fix=fix) from None
