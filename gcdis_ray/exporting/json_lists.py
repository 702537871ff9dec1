"""Long JSON lists, written record by record, a line each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class JsonList:
    """A file that is a list.

    Attributes:
        size: records so far.
    """

    def __init__(self, path: Path, begin: str = "[", end: str = "\n]\n") -> None:
        """Args: begin, end: what stands around the records."""
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - until close
        self._file.write(begin)
        self._end, self.size = end, 0

    def add(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        self._file.write(f"{',' if self.size else ''}\n{text}")
        self.size += 1

    def close(self) -> None:
        self._file.write(self._end)
        self._file.close()


class JsonLists:
    """A file that is an object of several lists. Each goes to a file of its own beside it, and
    :meth:`close` puts them together."""

    def __init__(self, path: Path, head: Mapping[str, Any], lists: Sequence[str]) -> None:
        """Args:
        head: what stands before the lists.
        lists: their names, in order.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._head = path, head
        self._lists = {name: JsonList(self._at(name), "", "") for name in lists}

    def __getitem__(self, name: str) -> JsonList:
        return self._lists[name]

    def close(self) -> None:
        with open(self._path, "wb") as file:
            file.write(json.dumps(self._head)[:-1].encode())
            for name, records in self._lists.items():
                records.close()
                file.write(f',\n"{name}": ['.encode())
                with open(self._at(name), "rb") as written:
                    shutil.copyfileobj(written, file)
                file.write(b"\n]")
                self._at(name).unlink()
            file.write(b"}\n")

    def _at(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}")
