"""What lies below a folder of a disk, behind its links too; and what a name opens, without links.

Each folder is listed once, however many links lead to it: by its own name, else by the first link.
So circles end, and no file is there twice. Links lead wherever their owner wanted, but for those to
a folder that they lie in themselves: what is around a folder is not meant by naming it.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from gcdis_ray.errors import DataError

Kind = Literal[
    "file",
    "link to a folder",  # followed, or to one that is listed anyway
    "links that lead nowhere",
    "links to folders they lie in",
    "folders that cannot be read",
]


class Entry(NamedTuple):
    """What a listing has at a name.

    Args:
        kind: those in the plural are of what does not open, or is not followed.
        is_link: itself, wherever its folder is.
        outside: its folder lies in another place, behind a link out of the source.
        version: of an object in a bucket: another one when its bytes change.
    """

    name: str
    kind: Kind = "file"
    is_link: bool = False
    outside: bool = False
    version: str | None = None


def walk(root: str, base: str, upward: bool = False) -> Iterator[Entry]:
    """Everything but plain folders, pipes and devices below ``base``, relative to it, in no order.

    Args:
        root: the source that ``base`` lies in.
        upward: links are followed to folders that they lie in, too, unless these lie out of the
            source or hold it.

    Raises:
        DataError: ``base`` itself cannot be read, or a folder cannot for another reason than
            rights.
    """
    home, start = os.path.realpath(root), os.path.realpath(base)
    seen: set[str] = set()  # real paths of folders
    folders = [("", start)]
    links: list[tuple[str, str]] = []  # a heap: followed when no folder is left, by their names
    while folders or links:
        if folders:
            at, real = folders.pop()
        else:
            at, place = heapq.heappop(links)
            real = os.path.realpath(os.path.join(base, at))
            around = is_below(start, real) or is_below(place, real)
            if real not in seen and around and not (upward and is_below(real, home)):
                yield Entry(at, "links to folders they lie in", is_link=True)
                continue
        if real in seen:
            continue
        seen.add(real)
        outside = not is_below(real, home)
        try:
            entries = _entries(real)
        except PermissionError as error:
            if not at:
                raise _unreadable(real, error) from error
            yield Entry(at, "folders that cannot be read", outside=outside)
            continue
        for entry in entries:
            name = f"{at}/{entry.name}" if at else entry.name
            is_folder, opens = _looked_at(entry)
            is_link = entry.is_symlink()
            if is_folder and is_link:
                heapq.heappush(links, (name, real))
                yield Entry(name, "link to a folder", True, outside)
            elif is_folder:
                folders.append((name, os.path.join(real, entry.name)))
            elif opens:
                yield Entry(name, "file", is_link, outside)
            elif is_link:
                yield Entry(name, "links that lead nowhere", True, outside)


def is_below(path: str, folder: str) -> bool:
    """Whether a real path is that of a folder, or lies in it."""
    return os.path.join(path, "").startswith(os.path.join(folder, ""))


def real_names(root: str, names: Iterable[str]) -> Iterator[str]:
    """For each name relative to ``root`` that of what it opens, without links: equal for two names
    of one file. An absolute path if that lies elsewhere. Each folder is listed once.

    Args:
        names: those that lead out of the root are given back as they are.
    """
    home = os.path.realpath(root)
    folders: dict[str, tuple[str, frozenset[str]] | None] = {}
    for name in names:
        parent, _, last = name.rpartition("/")
        if parent not in folders:
            folders[parent] = _linked(home, parent)
        if (found := folders[parent]) is None:
            yield name
            continue
        path = os.path.join(found[0], last)
        if last in found[1]:
            path = os.path.realpath(path)
        yield path[len(home) :].lstrip("/") if is_below(path, home) else path


def _linked(home: str, folder: str) -> tuple[str, frozenset[str]] | None:
    """The real path of a folder, and which of its entries are links; None if no link matters."""
    if os.path.isabs(folder) or ".." in folder.split("/"):
        return None
    try:
        real = os.path.realpath(os.path.join(home, folder))
        with os.scandir(real) as entries:
            links = frozenset(entry.name for entry in entries if entry.is_symlink())
    except (OSError, ValueError):  # not there, not to be read, or no name: who opens it will say
        return None
    return (real, links) if links or real != os.path.join(home, folder).rstrip("/") else None


def _entries(place: str) -> list[os.DirEntry[str]]:
    """Raises PermissionError if nothing in it may be listed or opened; DataError if all that
    fails."""
    try:
        with os.scandir(place) as entries:
            found = list(entries)
        os.stat(os.path.join(place, "."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise
    except OSError as error:
        raise _unreadable(place, error) from error
    return found


def _unreadable(place: str, error: OSError) -> DataError:
    return DataError(
        f"the folder cannot be read ({error.strerror})",
        where=place,
        fix="let it be read, or move it out of the data folder",
    )


def _looked_at(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether it is a folder, and whether it is a file."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False, False
