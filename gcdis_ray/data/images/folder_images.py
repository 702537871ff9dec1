"""Which files of a folder that nothing lists are images: by content, as everywhere; and what is
left out, counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import chain, islice
from pathlib import PurePosixPath

from gcdis_ray.data.images.image_check import HEAD_BYTES, image_format
from gcdis_ray.data.images.image_names import IMAGE_SUFFIXES
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import Entry, SourceFolder
from gcdis_ray.words import counted, cut, shown

# of text, tables, archives and films: nobody's images, and there may be one beside each image
_TEXTS = (".csv", ".htm", ".html", ".json", ".jsonl", ".md", ".py", ".tsv", ".txt", ".xml", ".yaml")
_OTHERS = (
    ".gz",
    ".mov",
    ".mp4",
    ".npy",
    ".npz",
    ".parquet",
    ".pdf",
    ".tar",
    ".tgz",
    ".yml",
    ".zip",
)
_NOT_OPENED = frozenset(_TEXTS + _OTHERS)
_AT_ONCE = 256  # files that are looked into side by side
_READERS = 8
_EXAMPLES = 3


class LeftOut:
    """Files of a folder that are not taken: how many of each kind, and some names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, name: str, kind: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self.examples.append(name)

    @property
    def total(self) -> int:
        return self.counts.total()

    def describe(self) -> str:
        """``3 other files (1 .bmp, 2 .gif), such as a.bmp, b.gif``."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts.items()))
        examples = ", ".join(map(_printed, sorted(self.examples)[:_EXAMPLES]))
        return f"{counted(self.total, 'other file')} ({kinds}), such as {examples}"


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
    """
    entries = iter(folder.entries(below))
    with ThreadPoolExecutor(_READERS) as pool:
        while listed := list(islice(entries, _AT_ONCE)):
            kinds = [_kind(entry) for entry in listed]
            unclear = [row for row, kind in enumerate(kinds) if kind == ""]
            names = [f"{below}/{listed[row].name}" for row in unclear]
            for row, is_image in zip(unclear, _looked_into(pool, folder, names), strict=True):
                kinds[row] = None if is_image else _suffix(listed[row].name)
            yield from zip((entry.name for entry in listed), kinds, strict=True)


def _looked_into(
    pool: ThreadPoolExecutor, folder: SourceFolder, names: Sequence[str]
) -> Iterator[bool]:
    each = max(1, -(-len(names) // _READERS))
    parts = [names[at : at + each] for at in range(0, len(names), each)]
    tasks = [pool.submit(copy_context().run, _are_images, folder, part) for part in parts]
    return chain.from_iterable(task.result() for task in tasks)


def _kind(entry: Entry) -> str | None:
    """None: an image by its name; empty: who opens it will know."""
    name = entry.name
    if not entry.opens:
        return "links that lead nowhere"
    if not _usable(name):
        return "names of control characters, or not in UTF-8"
    if PurePosixPath(name).name.startswith("."):
        return "hidden"
    suffix = _suffix(name)
    if suffix in IMAGE_SUFFIXES:
        return None
    return suffix if suffix in _NOT_OPENED else ""


def _printed(name: str) -> str:
    return cut(name) if name.isprintable() else shown(name)


def _usable(name: str) -> bool:
    return all(ord(letter) >= 32 and not 0xD800 <= ord(letter) < 0xE000 for letter in name)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or "without suffix"


def _are_images(folder: SourceFolder, names: Sequence[str]) -> list[bool]:
    return [_is_image(folder, name) for name in names]


def _is_image(folder: SourceFolder, name: str) -> bool:
    try:
        with folder.open(name) as file:
            image_format(file.read(HEAD_BYTES))
    except (OSError, DataError):
        return False
    return True
