"""Words of messages: what a file says, cut to a readable length; numbers with their nouns,
sizes and durations with their units."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

_LONGEST = 80  # characters
_TAIL = 20


def cut(text: str) -> str:
    """``text`` without its middle if it is long: names in files can be of any length."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - _TAIL - 3]}...{text[-_TAIL:]}"


def shown(value: object) -> str:
    """A value of a file as Python writes it, cut."""
    return cut(repr(value))


def printed(name: str) -> str:
    """A name of a file, cut; as Python writes it if a terminal cannot: names can be any bytes."""
    return cut(name) if name.isprintable() else shown(name)


def some(values: Collection[Any], most: int, written: Callable[[Any], str] = shown) -> str:
    """The first ``most`` of them, each cut, and how many more there are."""
    text = ", ".join(map(written, islice(values, most)))
    return text if len(values) <= most else f"{text} and {len(values) - most:,} more"


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``2,000 images``.

    Args:
        many: unless it is ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def estimate(number: int, low: int, high: int) -> str:
    """``61 (55 to 73)``, or ``45 to 110, at best 70`` where the range says more than the number."""
    if hardly_known(low, high):
        return f"{low:,} to {high:,}, at best {number:,}"
    return f"{number:,} ({low:,} to {high:,})" if low < high else f"{number:,}"


def hardly_known(low: int, high: int) -> bool:
    """Whether a number in this range is hardly known: its ends differ by a factor of two."""
    return high >= 2 * low


def size(num_bytes: float) -> str:
    """``12 B``, ``3.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def duration(seconds: float, *, tenths: bool = False) -> str:
    """``5 s``, ``2 min 05 s``, ``3 h 02 min``.

    Args:
        tenths: ``5.3 s`` below a minute.
    """
    whole = round(seconds)
    if seconds < 60 and tenths:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
