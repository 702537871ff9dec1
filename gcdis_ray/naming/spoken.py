"""Acts as they are said on a command line: by the numbers and names that are shown of clusters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from gcdis_ray.curating.acts import Act, Merge, Name, Note, Reject, Split, Undo, read_act, to_line
from gcdis_ray.errors import CurationError
from gcdis_ray.naming.clusters import Cluster
from gcdis_ray.naming.desk import Desk, Standing
from gcdis_ray.words import printed, some

Said = tuple[str, str]  # the option without dashes, and what stood after it


def acts_of(said: Sequence[Said], desk: Desk, standing: Standing, note: Note) -> list[Act]:
    """What was said, in order. Numbers and names are those of ``standing`` throughout.

    Args:
        said: ``("name", "12=zebra")``, ``("merge", "3,5")``, ``("split", "4")``,
            ``("split-crops", "7,9,31")``, ``("reject", "7")`` or ``("undo", "")``.

    Raises:
        CurationError: names the option that nothing can be made of.
    """
    return [_act(option, text, desk, standing, note) for option, text in said]


def _act(option: str, text: str, desk: Desk, standing: Standing, note: Note) -> Act:
    where = f"--{option} {printed(text)}".rstrip()
    note = replace(note, where=where)  # what cannot be followed is told of that
    match option:
        case "name":
            which, sign, name = text.partition("=")
            if not sign:
                raise CurationError("says no name", where=where, fix="--name 12=zebra")
            act: Act = Name(find(standing, which, where).crop, name, note)
        case "merge":
            clusters = [find(standing, which, where) for which in text.split(",")]
            if len({cluster.number for cluster in clusters}) < 2:
                raise CurationError(
                    "two clusters or more are merged", where=where, fix="--merge 3,5"
                )
            act = Merge(tuple(dict.fromkeys(cluster.crop for cluster in clusters)), note)
        case "split":
            cluster = find(standing, text, where)
            try:
                suggestion = desk.suggestion(cluster)
            except CurationError as error:
                raise error.at(where, "--split-crops 7,9,31: the crops that leave it") from None
            return Split(tuple(suggestion.crops_M.tolist()), note)
        case "split-crops":
            act = Split(tuple(_crop(word, where) for word in text.split(",")), note)
        case "reject":
            return Reject(find(standing, text, where).crop, note)
        case _:
            return Undo(note)
    return read_act(json.loads(to_line(act)), where)  # held to what a log may say


def find(standing: Standing, which: str, where: str) -> Cluster:
    """The cluster of a number (``12`` or ``#12``), or of a shown name.

    Raises:
        CurationError: there is none, or a number is the name of another.
    """
    word = which.strip()
    digits = word.removeprefix("#")
    by_name = [c for c in standing.clusters if c.name.casefold() == word.casefold()]
    by_number = []
    if digits.isascii() and digits.isdigit():
        by_number = [c for c in standing.clusters if str(c.number) == digits]
    found = list({c.number: c for c in [*by_number, *by_name]}.values())
    if len(found) > 1:
        numbers = " or ".join(f"#{cluster.number}" for cluster in found)
        raise CurationError(
            f"{printed(word)} is the number of one class and the name of another",
            where=where,
            fix=f"say {numbers}",
        )
    if not found:
        names = [f"#{c.number} {c.name}" for c in standing.clusters]
        raise CurationError(
            f"no cluster is called {printed(word)!r}, or has that number",
            where=where,
            fix=f"gcdis name RUN --list; there are {some(names, 4, printed)}",
        )
    return found[0]


def _crop(word: str, where: str) -> int:
    digits = word.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise CurationError(
            f"{printed(digits)!r} is no number of a crop", where=where, fix="--split-crops 7,9,31"
        )
    return int(digits)
