"""Which files of a folder that nothing lists are images: by content, as everywhere; and what is
left out, counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from itertools import chain, islice
from pathlib import PurePosixPath

from gcdis_ray.data.images.image_check import HEAD_BYTES, image_format
from gcdis_ray.data.images.image_names import IMAGE_SUFFIXES
from gcdis_ray.errors import DataError
from gcdis_ray.store.folder_walk import Entry
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, printed

# Texts, tables, archives and films are nobody's images, and there may be one beside each image.
_TEXTS = (".csv", ".htm", ".html", ".json", ".jsonl", ".md", ".py", ".tsv", ".txt", ".xml")
_OTHERS = (".gz", ".mov", ".mp4", ".npy", ".npz", ".parquet", ".pdf", ".tar", ".tgz", ".zip")
_NOT_OPENED = frozenset((*_TEXTS, ".yaml", ".yml", *_OTHERS))
_AT_ONCE = 256  # files that are looked into side by side
_READERS = 8
_EXAMPLES = 3
_KINDS = 8  # that are told
_REMEMBERED = 1 << 17  # objects of buckets
_UNREADABLE = "files that cannot be read"


class LeftOut:
    """Files of a folder that are not taken: how many of each kind, and some names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._example: dict[str, str] = {}  # the first of each kind by name

    def add(self, name: str, kind: str) -> None:
        self.counts[kind] += 1
        self._example[kind] = min(name, self._example.get(kind, name))

    @property
    def total(self) -> int:
        return self.counts.total()

    def describe(self) -> str:
        """``3 other files (2 .gif, 1 .bmp), such as a.bmp, b.gif``."""
        told = most_frequent(self.counts)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in told.items())
        names = [self._example[kind] for kind in told if kind in self._example][:_EXAMPLES]
        examples = ", ".join(map(printed, sorted(names)))
        return f"{counted(self.total, 'other file')} ({kinds}), such as {examples}"


def most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent kinds and their counts, and one count of all others."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    told = dict(ordered[:_KINDS])
    if len(ordered) > _KINDS:
        told[f"of {len(ordered) - _KINDS:,} other kinds"] = sum(c for _, c in ordered[_KINDS:])
    return told


def image_names(folder: SourceFolder, below: str, left_out: LeftOut) -> Iterator[str]:
    """Names of the image files below a folder, relative to it, in no order of their own.

    Args:
        left_out: is told of all other files.
    """
    for name, kind in sorted_out(folder, below):
        if kind is None:
            yield name
        else:
            left_out.add(name, kind)


def sorted_out(folder: SourceFolder, below: str) -> Iterator[tuple[str, str | None]]:
    """Every file below a folder, and of what kind it is if it is no image.

    A file is opened only where its suffix does not tell.

    Raises:
        StorageError: the folder cannot be reached.
        DataError: a folder or a file cannot be read, for another reason than rights.
    """
    entries = iter(folder.entries(below))
    with ThreadPoolExecutor(_READERS) as pool:
        while listed := list(islice(entries, _AT_ONCE)):
            kinds = [_kind(entry) for entry in listed]
            unclear = [row for row, kind in enumerate(kinds) if kind == ""]
            found = _looked_into(pool, folder, below, [listed[row] for row in unclear])
            for row, kind in zip(unclear, found, strict=True):
                kinds[row] = kind
            yield from zip((entry.name for entry in listed), kinds, strict=True)


def is_image(folder: SourceFolder, name: str) -> bool:
    """Whether a file is an image by its suffix or, where that does not tell, by content."""
    suffix = _suffix(name)
    if suffix in IMAGE_SUFFIXES:
        return True
    return suffix not in _NOT_OPENED and _kind_inside(folder, name) is None


def _looked_into(
    pool: ThreadPoolExecutor, folder: SourceFolder, below: str, entries: Sequence[Entry]
) -> Iterator[str | None]:
    each = max(1, -(-len(entries) // _READERS))
    parts = [entries[at : at + each] for at in range(0, len(entries), each)]
    tasks = [pool.submit(copy_context().run, _kinds_inside, folder, below, part) for part in parts]
    return chain.from_iterable(task.result() for task in tasks)


def _kinds_inside(folder: SourceFolder, below: str, entries: Sequence[Entry]) -> list[str | None]:
    names = [f"{below}/{entry.name}" for entry in entries]
    return [
        _kind_inside(folder, name)
        if entry.version is None
        else _kind_of(folder, name, entry.version)
        for name, entry in zip(names, entries, strict=True)
    ]


def _kind(entry: Entry) -> str | None:
    """None: an image by its name; empty: who opens it will know."""
    name = entry.name
    if entry.kind != "file":
        return entry.kind
    if not _usable(name):
        return "names of control characters, or not in UTF-8"
    if any(part.startswith(".") for part in name.split("/")):
        return "hidden"  # and so is what programs keep in hidden folders
    suffix = _suffix(name)
    if suffix in IMAGE_SUFFIXES:
        return None
    return suffix if suffix in _NOT_OPENED else ""


def _usable(name: str) -> bool:
    return all(ord(letter) >= 32 and not 0xD800 <= ord(letter) < 0xE000 for letter in name)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or "without suffix"


@lru_cache(maxsize=_REMEMBERED)
def _kind_of(folder: SourceFolder, name: str, version: str) -> str | None:
    """A version of an object is asked for once a command."""
    return _kind_inside(folder, name)


def _kind_inside(folder: SourceFolder, name: str) -> str | None:
    try:
        image_format(folder.head(name, HEAD_BYTES))
    except (DataError, FileNotFoundError):
        return _suffix(name)
    except PermissionError:
        return _UNREADABLE
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})",
            where=f"{folder.uri}/{printed(name)}",
            fix="let it be read, or move it out of the data folder",
        ) from error
    return None
