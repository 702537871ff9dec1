"""Files that are there under almost the name of one that is missing: for messages, never to be
taken instead."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import unquote

from gcdis_ray.words import printed

_MOST = 100  # files of one name that are compared


def similar_names(
    missing: Sequence[str], there: Iterable[str], usable: Callable[[str], bool] = lambda name: True
) -> Mapping[str, str]:
    """For each missing name that a file is almost named like, a phrase: which file, and what
    differs.

    Args:
        missing: a few.
        there: all files that are there.
        usable: whether one can have been meant; asked of those alone that are called almost so.
    """
    wanted = {_stem(name) for name in missing}
    found: dict[str, list[str]] = {}
    for name in there if wanted else ():
        if (stem := _stem(name)) in wanted and len(found.setdefault(stem, [])) < _MOST:
            found[stem].append(name)
    phrases = {}
    for name in missing:
        said = [
            (rank, other, words)
            for other in found.get(_stem(name), ())
            for rank, words in [_difference(name, other)]
            if words and usable(other)
        ]
        best = [entry for entry in said if entry[0] == min(said)[0]]
        if len(best) == 1:
            phrases[name] = f"there is {printed(best[0][1])}: {best[0][2]}"
        elif best:
            phrases[name] = f"there are {len(best)} such as {printed(min(best)[1])}: {best[0][2]}"
    return phrases


def _plain(name: str) -> str:
    """A name without what people and programs write differently."""
    text = unicodedata.normalize(
        "NFKC", unquote(name.replace("\\", "/").replace("+", " "))
    ).casefold()
    return "/".join(part.strip() for part in text.split("/"))


def _stem(name: str) -> str:
    """What is alike in names of one file: no folder, no suffix."""
    last = _plain(name).rpartition("/")[2]
    return last.rpartition(".")[0] or last


def _difference(name: str, other: str) -> tuple[int, str]:
    """How much ``other`` differs, and the words for it; none if they are hardly alike."""
    ways = (
        ("the same letters, composed otherwise (Unicode NFC, NFD)", _composed),
        ("other capital letters", str.casefold),
        ("%20 and the like written out", unquote),
        ("another slash", lambda text: text.replace("\\", "/")),
    )
    for words, written in ways:
        if written(name) == written(other):
            return 0, words
    mine, others = _plain(name).split("/"), _plain(other).split("/")
    if mine == others:
        return 0, "almost the same letters"
    if mine[-len(others) :] == others:
        more = "/".join(name.replace("\\", "/").split("/")[: -len(others)])
        return 1, f"without the folder {printed(more)}"
    if others[-len(mine) :] == mine:
        return 2, "in a folder below"
    if mine[:-1] == others[:-1]:
        return 3, "another suffix"
    return 4, ""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
