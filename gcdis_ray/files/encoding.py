"""How a text file is written: UTF-8, with or without its byte order mark, or something else."""

from __future__ import annotations

import codecs
from typing import BinaryIO

from gcdis_ray.errors import DataError

MARK = codecs.BOM_UTF8
_LONGEST = 4
_OTHERS = (  # longer marks first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "UTF-32 text"),
    (codecs.BOM_UTF32_BE, "UTF-32 text"),
    (codecs.BOM_UTF16_LE, "UTF-16 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"PK\x03\x04", "compressed (zip)"),
)
_FIX = "write it as UTF-8: iconv -f UTF-16 -t UTF-8, or encoding='utf-8' in Python"


class Utf8File:
    """The bytes of a file after its byte order mark, if it has one.

    Args:
        file: at its start.
        path: what to call it in errors.

    Raises:
        DataError: it begins as another encoding does, or as a compressed file.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        start = b""
        while len(start) < _LONGEST and (more := file.read(_LONGEST - len(start))):
            start += more
        check_encoding(start, path)
        self.num_skipped = len(MARK) if start.startswith(MARK) else 0
        self._start = start[self.num_skipped :]

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        if not self._start:
            return self._file.read(size)
        if size < 0:
            data, self._start = self._start, b""
            return data + self._file.read()
        data, self._start = self._start[:size], self._start[size:]
        return data if len(data) == size else data + self._file.read(size - len(data))


def check_encoding(start: bytes, path: str) -> None:
    """Raise DataError if a file begins as none in UTF-8 does.

    Args:
        start: four bytes, fewer of a shorter file.
        path: what to call it in errors.
    """
    if (other := _other(start)) is not None:
        fix = "unpack it first" if "compressed" in other else _FIX
        raise DataError(f"the file is {other}, not UTF-8 text", where=path, fix=fix)


def _other(start: bytes) -> str | None:
    for mark, name in _OTHERS:
        if start.startswith(mark):
            return name
    if b"\0" in start:  # text in JSON begins with two characters of ASCII
        return "UTF-32 text" if start.count(b"\0") > 2 else "UTF-16 text"
    return None
