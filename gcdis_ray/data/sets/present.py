"""Which of the listed images are there: one listing of the folder, and what is missing by name."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, cut, some

_PATCH = re.compile(r"patch(\d+)")
_EXAMPLES = 3
FIX = "fetch them, or set partial: true for this set to go on without"


@dataclass(frozen=True)
class Missing:
    """Listed images that are not there."""

    total: int  # listed
    folders: tuple[str, ...]  # of which nothing is there
    in_folders: int  # images in those
    files: int  # images elsewhere
    examples: tuple[str, ...]  # of those elsewhere

    @property
    def count(self) -> int:
        return self.in_folders + self.files

    def describe(self) -> str:
        parts = []
        if self.folders:
            parts.append(f"{_named(self.folders)} ({counted(self.in_folders, 'image')})")
        if self.files:
            examples = some(self.examples, _EXAMPLES, cut)
            parts.append(f"{counted(self.files, 'file')} such as {examples}")
        missing = f"{self.count:,} of {counted(self.total, 'image')}"
        return f"{missing} {'is' if self.count == 1 else 'are'} missing: {'; '.join(parts)}"

    def error(self, where: str) -> DataError:
        return DataError(self.describe(), where=where, fix=FIX)


class Names:
    """A set of file names, as 8 bytes each."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashes = np.unique(np.array(array("q", map(hash, names)), np.int64))

    def __contains__(self, name: str) -> bool:
        key = hash(name)  # 64 bits: among two million files two alike are one chance in 10^7
        place = int(np.searchsorted(self._hashes, key))
        return place < len(self._hashes) and int(self._hashes[place]) == key


class Listing(Names):
    """Every file below a folder."""

    def __init__(self, folder: SourceFolder, images: str) -> None:
        super().__init__(folder.names(images))

    def missing(self, names: Iterable[str]) -> Missing:
        """What of ``names`` is not listed; 8 bytes of memory each."""
        total = 0
        listed, absent = Counter[str](), Counter[str]()
        examples: dict[str, list[str]] = {}
        for name in names:
            total += 1
            parent = name.rpartition("/")[0]
            listed[parent] += 1
            if name not in self:
                absent[parent] += 1
                if len(shown := examples.setdefault(parent, [])) < _EXAMPLES:
                    shown.append(name)
        whole = sorted(p for p in absent if p and absent[p] == listed[p])
        elsewhere = sorted(p for p in absent if p not in set(whole))
        return Missing(
            total,
            tuple(whole),
            sum(absent[p] for p in whole),
            sum(absent[p] for p in elsewhere),
            tuple(name for p in elsewhere for name in examples[p])[:_EXAMPLES],
        )


def _named(folders: tuple[str, ...]) -> str:
    patches = [_PATCH.fullmatch(folder) for folder in folders]
    if all(patches):
        numbers = sorted(int(match[1]) for match in patches if match)
        return f"patch{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    return f"folder{'s' if len(folders) > 1 else ''} {some(folders, 8, cut)}"
