"""What people say of discovered classes, one act a line: its types, their form in a log, and what
of them still stands.

    {"act": "name", "crop": 12, "name": "zebra"}    the cluster that crop 12 lies in
    {"act": "merge", "crops": [12, 845]}            the clusters of these crops become one
    {"act": "split", "crops": [7, 9, 31]}           these leave their cluster and become a new one
    {"act": "reject", "crop": 12}                   its cluster is no class: its crops are noise
    {"act": "undo"}                                 takes back the last act that is not taken back

Besides, ``"at"`` (when) and ``"by"`` (who) are text for people. Clusters are named by crops
(``crop_index``), so that a log says the same of another discovery of the same crops.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcdis_ray.errors import CurationError
from gcdis_ray.words import counted, shown

LONGEST_NAME = 100  # characters
_MAX_CROP = 2**63 - 1  # of int64


@dataclass(frozen=True)
class Note:
    """What of an act is for people only: where it is written, when it was said and by whom."""

    where: str | None = None
    at: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Name:
    """The cluster of ``crop`` is called ``name``; one that had a name gets another."""

    crop: int
    name: str
    note: Note = field(default=Note(), compare=False)


@dataclass(frozen=True)
class Merge:
    """The clusters of two or more ``crops`` become one."""

    crops: tuple[int, ...]
    note: Note = field(default=Note(), compare=False)


@dataclass(frozen=True)
class Split:
    """These ``crops``, all of one cluster, leave it and become a new one."""

    crops: tuple[int, ...]
    note: Note = field(default=Note(), compare=False)


@dataclass(frozen=True)
class Reject:
    """The cluster of ``crop`` is no class."""

    crop: int
    note: Note = field(default=Note(), compare=False)


@dataclass(frozen=True)
class Undo:
    """The last act that is not taken back is taken back."""

    note: Note = field(default=Note(), compare=False)


Move = Merge | Split | Reject  # changes which crops are one class
Act = Name | Move | Undo

_WORDS = {Name: "name", Merge: "merge", Split: "split", Reject: "reject", Undo: "undo"}
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "name": ("crop", "name"),
    "merge": ("crops",),
    "split": ("crops",),
    "reject": ("crop",),
    "undo": (),
}
_NOTES = ("at", "by")


def parse_log(text: str, where: str) -> list[Act]:
    """The acts of a log, in order. Empty lines are passed over.

    Args:
        where: the log's address, for messages.

    Raises:
        CurationError: a line that is no act, with its number.
    """
    lines = enumerate(text.split("\n"), 1)
    return [parse_act(line, f"{where}, line {n}") for n, line in lines if line.strip()]


def parse_act(line: str, where: str) -> Act:
    """One line of a log.

    Raises:
        CurationError: it is no act.
    """
    try:
        plain = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise CurationError(f"not JSON ({error}): {shown(line)}", where=where, fix=_FIX) from None
    try:
        return _act(plain, where)
    except _Wrong as wrong:
        raise CurationError(f"{wrong}: {shown(line)}", where=where, fix=_FIX) from None


def read_act(plain: Any, where: str) -> Act:
    """An act as plain data, as one line of a log would have it.

    Raises:
        CurationError: it is none.
    """
    try:
        return _act(plain, where)
    except _Wrong as wrong:
        raise CurationError(str(wrong), where=where) from None


def to_line(act: Act) -> str:
    """An act as its line in a log, without a line break; :func:`parse_act` reads it."""
    notes = {name: value for name in _NOTES if (value := getattr(act.note, name)) is not None}
    return json.dumps(plain(act) | notes, ensure_ascii=False)


def plain(act: Act) -> dict[str, Any]:
    """An act as plain data, without what is for people only."""
    word = _WORDS[type(act)]
    values = {name: getattr(act, name) for name in _FIELDS[word]}
    return {"act": word} | {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def standing(acts: Iterable[Act]) -> list[Name | Move]:
    """The acts that are not taken back, in order.

    Raises:
        CurationError: an undo where nothing is left to take back.
    """
    left: list[Name | Move] = []
    for act in acts:
        if not isinstance(act, Undo):
            left.append(act)
        elif left:
            left.pop()
        else:
            raise CurationError(
                "undo, and no act is left to take back", where=act.note.where, fix=_FIX
            )
    return left


def moves(acts: Iterable[Act]) -> list[Move]:
    """Those that stand and change which crops are one class: all but names."""
    return [act for act in standing(acts) if not isinstance(act, Name)]


def canonical(moved: Sequence[Move]) -> list[dict[str, Any]]:
    """Moves as plain data for a key: equal for logs that differ in the order of merges, splits or
    rejections that follow one another and do not depend on each other.

    Merges in a row are the groups of crops that they join, splits in a row without a crop in common
    and rejections in a row are sorted. Each such order leads to the same classes.
    """
    found: list[dict[str, Any]] = []
    start = 0
    while start < len(moved):
        kind, stop, seen = type(moved[start]), start, set[int]()
        while stop < len(moved) and type(moved[stop]) is kind:
            act = moved[stop]
            if isinstance(act, Split):
                if seen & set(act.crops):
                    break
                seen |= set(act.crops)
            stop += 1
        found += _sorted_run(moved[start:stop])
        start = stop
    return found


def _sorted_run(run: Sequence[Move]) -> list[dict[str, Any]]:
    """Moves of one kind whose order does not count."""
    groups = [set(act.crops if not isinstance(act, Reject) else [act.crop]) for act in run]
    if isinstance(run[0], Reject):
        return [plain(Reject(crop)) for crop in sorted(min(group) for group in groups)]
    if isinstance(run[0], Merge):
        groups = _joined(groups)
    return [plain(type(run[0])(tuple(crops))) for crops in sorted(map(sorted, groups))]


def _joined(groups: Iterable[set[int]]) -> list[set[int]]:
    """Sets united as long as any two have a member in common."""
    found: list[set[int]] = []
    for group in groups:
        apart = [other for other in found if not other & group]
        found = [*apart, group.union(*(other for other in found if other & group))]
    return found


def told(acts: Iterable[Act]) -> str:
    """What was decided, in words: ``2 named, 1 merge``; empty where nothing stands."""
    left = standing(acts)
    count = {kind: sum(isinstance(act, kind) for act in left) for kind in _WORDS}
    words = [f"{count[Name]:,} named"] if count[Name] else []
    words += [counted(count[Merge], "merge")] if count[Merge] else []
    words += [counted(count[Split], "split")] if count[Split] else []
    words += [f"{count[Reject]:,} rejected"] if count[Reject] else []
    return ", ".join(words)


_FIX = "correct or remove that line; gcdis_ray/curating/acts.py says what one may hold"


class _Wrong(Exception):
    """What is wrong with an act."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _act(plain: Any, where: str) -> Act:
    if not isinstance(plain, dict):
        raise _Wrong("not an object")
    word = plain.get("act")
    if not isinstance(word, str) or word not in _FIELDS:
        raise _Wrong(f"act is {shown(word)}, not one of {', '.join(_FIELDS)}")
    wanted = _FIELDS[word]
    if absent := [name for name in wanted if name not in plain]:
        raise _Wrong(f"{word} without {absent[0]!r}")
    if strange := sorted(plain.keys() - {"act", *wanted, *_NOTES}):
        raise _Wrong(f"{word} with {shown(strange[0])}, which it does not have")
    note = Note(where, _text(plain, "at"), _text(plain, "by"))
    if word == "name":
        return Name(_crop(plain["crop"]), _name(plain["name"]), note)
    if word == "reject":
        return Reject(_crop(plain["crop"]), note)
    if word == "undo":
        return Undo(note)
    crops = _crops(plain["crops"], 2 if word == "merge" else 1)
    return Merge(crops, note) if word == "merge" else Split(crops, note)


def _text(plain: Mapping[str, Any], name: str) -> str | None:
    value = plain.get(name)
    if value is not None and not (isinstance(value, str) and _is_encodable(value)):
        raise _Wrong(f"{name!r} is no text")
    return value


def _crop(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_CROP:
        raise _Wrong(f"{shown(value)} is no crop_index, which is 0, 1, ...")
    return value


def _crops(value: Any, least: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) < least:
        raise _Wrong(f"crops is no list of {least} or more")
    crops = tuple(map(_crop, value))
    if len(set(crops)) < len(crops):
        raise _Wrong("a crop is listed twice")
    return crops


def _name(value: Any) -> str:
    """A name as people see it: without blanks around it, in composed letters."""
    if not isinstance(value, str) or not _is_encodable(value):
        raise _Wrong("name is no text")
    name = unicodedata.normalize("NFC", value).strip()
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise _Wrong(f"a name has 1 to {LONGEST_NAME} printable characters")
    return name


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
