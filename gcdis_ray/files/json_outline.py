"""What a JSON file holds at its top, whether it is whole, and the words for one that is not.

One pass finds that out, with memory bounded whatever the file says: how deep it nests, how long its
tokens and records are, which lists it holds. After that its records can be built without fear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from gcdis_ray.errors import DataError
from gcdis_ray.files.encoding import Utf8File

MAX_DEPTH = 32  # annotations need 5; the parser's memory grows with the square of the depth
MAX_TOKEN_BYTES = 4 << 20  # a string or a number; run-length masks are the longest
MAX_RECORD_BYTES = 64 << 20
_MAX_KEYS = 10_000
_FIX = "write or copy the file again"
_TOO_LARGE = "a whole number beyond 64 bits"
_NOT_UTF8 = "not UTF-8 text"
_FIXES = {
    _TOO_LARGE: "number from 0 to 9223372036854775807",
    _NOT_UTF8: "write it as UTF-8: iconv -f LATIN1 -t UTF-8, or encoding='utf-8' in Python",
}
_CHUNK_BYTES = 1 << 16
_STEPS = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}  # in depth


@dataclass(frozen=True)
class Outline:
    """What a file holds at its top."""

    keys: frozenset[str]
    lists: Mapping[str, int]  # top-level list -> number of entries; "" if the file is one list
    first: Mapping[str, Mapping[str, Any]]  # of each such list: plain fields of the first entry
    fields: Mapping[str, frozenset[str]]  # of each such list: all field names of the first entry


def read_outline(file: BinaryIO, path: str) -> Outline:
    """Looks a file through, to its end.

    Raises:
        DataError: no JSON, cut off, nested absurdly, a token or record of absurd length, two values
            of one name at the top; with the record where that is so.
    """
    return _Scan(path).read(file)


@contextmanager
def named_errors(path: str, fix: str | None = None) -> Iterator[None]:
    """Gives the errors of reading a JSON file their words, as DataError."""
    import ijson

    try:
        yield
    except FileNotFoundError:
        raise DataError("no such file", where=path, fix="check the path") from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=path) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(_said(error), where=path, fix=fix) from None


def place(path: str, section: str, position: int) -> str:
    """What to call an entry of a list in errors."""
    return f"{path}: {section}[{position}]"


def _said(error: Exception) -> str:
    """What the parser says, in a line."""
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
    first = (text.strip() or "empty").splitlines()[0]
    if "premature EOF" in first or "ncomplete" in first:
        return "the file ends in the middle (truncated JSON)"
    if "integer overflow" in text or "Number is too big" in text:
        return _TOO_LARGE
    if "invalid bytes in UTF8" in text or isinstance(error, UnicodeDecodeError):
        return _NOT_UTF8
    if re.search("NaN|Infinity", text):
        return "not valid JSON (NaN and Infinity are no JSON numbers)"
    return f"not valid JSON ({first[:120]})"


class _Scan:
    """One pass over the events of a file. ``list_depth`` is the depth at which the entries of a
    top-level list stand: 1 in a file that is a list, else 2; 0 outside of any."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.depth = self.list_depth = 0
        self.section, self.field = "", ""
        self.is_object = False
        self.in_first = False  # the first entry of a list: its plain fields are kept
        self.total = self.entry_start = 0  # bytes
        self.keys: set[str] = set()
        self.lists: dict[str, int] = {}
        self.first: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, set[str]] = {}

    def read(self, file: BinaryIO) -> Outline:
        import ijson

        text = Utf8File(file, self.path)
        self.total = text.num_skipped
        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events, use_float=True)
        silent = 0
        try:
            for chunk in iter(partial(text.read, _CHUNK_BYTES), b""):
                self.total += len(chunk)
                parser.send(chunk)
                silent = 0 if events else silent + len(chunk)
                if silent > MAX_TOKEN_BYTES:
                    self._refuse(f"a string or number of more than {MAX_TOKEN_BYTES} bytes")
                self._take(events, self.total - len(chunk))
                events.clear()
                inside = self.list_depth and self.depth > self.list_depth
                if inside and self.total - self.entry_start > MAX_RECORD_BYTES:
                    self._refuse(f"a record of more than {MAX_RECORD_BYTES} bytes")
            if self.total == text.num_skipped:
                raise DataError("the file is empty", where=self.path, fix=_FIX)
            parser.close()
        except (ijson.JSONError, UnicodeDecodeError) as error:
            self._take(events, self.total)  # what was good before it
            said = _said(error)
            raise DataError(
                f"{said}, at or before byte {self.total}",
                where=self._here(),
                fix=_FIXES.get(said, _FIX),
            ) from None
        fields = {section: frozenset(names) for section, names in self.fields.items()}
        return Outline(frozenset(self.keys), self.lists, self.first, fields)

    def _take(self, events: Sequence[tuple[str, Any]], start: int) -> None:
        """The events of a chunk that begins at byte ``start``."""
        depth = self.depth
        for event, value in events:
            step = _STEPS.get(event)
            if step is None:
                if depth < 3 or self.in_first:  # what is deeper is most of a file
                    self._value(event, value, depth, start)
                continue
            if step > 0 and depth < 3:
                self._start(event, depth, start)
            elif step < 0 and depth == self.list_depth:
                self.list_depth, self.in_first = 0, False
            depth += step
            if depth > MAX_DEPTH:
                self._refuse(f"nested more than {MAX_DEPTH} deep")
        self.depth = depth

    def _start(self, event: str, depth: int, start: int) -> None:
        if depth == 0:
            self.is_object = event == "start_map"
        if self.list_depth:
            self._entry(depth, start)
        elif event == "start_array" and depth == self.is_object:
            self.list_depth = depth + 1
            self.lists[self.section], self.first[self.section] = 0, {}
            self.fields[self.section] = set()

    def _value(self, event: str, value: Any, depth: int, start: int) -> None:
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
                self.fields[self.section].add(value)
        elif self.in_first and depth == self.list_depth + 1 and self.field:
            self.first[self.section][self.field] = value
        elif self.list_depth:
            self._entry(depth, start)

    def _entry(self, depth: int, start: int) -> None:
        if depth == self.list_depth:
            self.lists[self.section] += 1
            self.in_first = self.lists[self.section] == 1
            self.entry_start, self.field = start, ""

    def _here(self) -> str:
        """The file, or the entry of a list that the scan stands in or before."""
        if not self.list_depth:
            return self.path
        inside = self.depth > self.list_depth
        return place(self.path, self.section, self.lists[self.section] - inside)

    def _refuse(self, what: str) -> None:
        raise DataError(what, where=self.path)
