"""A config as YAML text, with the reasons of its choices as comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_WIDTH = 100
_DEEP = 2  # spaces before sections that may stand in one line


@dataclass(frozen=True)
class Chosen:
    """A value, and why it is that."""

    value: Any
    why: str


def config_text(head: str, tree: Mapping[str, Any]) -> str:
    """A config file.

    Args:
        head: lines of the comment at its top.
        tree: sections by name. A value that is :class:`Chosen` has a comment. A mapping without
            one inside is written in one line if it fits.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    return "\n".join([*lines, *_lines(tree, "")]) + "\n"


def _lines(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    for place, (key, entry) in enumerate(tree.items()):
        if isinstance(entry, Mapping) and entry and not _is_short(key, entry, indent):
            if not indent or (place and len(indent) == _DEEP):
                yield ""
            yield f"{indent}{key}:"
            yield from _lines(entry, f"{indent}  ")
            continue
        value, why = (entry.value, entry.why) if isinstance(entry, Chosen) else (entry, "")
        line, comment = f"{indent}{key}: {_plain(value)}", f"# {' '.join(why.split())}"
        if not why:
            yield line
        elif len(f"{line}  {comment}") <= _WIDTH:
            yield f"{line}  {comment}"
        else:
            yield f"{indent}{comment}"
            yield from _lines({key: value}, indent) if isinstance(value, Mapping) else [line]


def _is_short(key: str, section: Mapping[str, Any], indent: str) -> bool:
    if len(indent) < _DEEP or any(isinstance(v, Chosen | Mapping) for v in section.values()):
        return False
    return len(f"{indent}{key}: {_plain(section)}") <= _WIDTH


def _plain(value: Any) -> str:
    """In one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
