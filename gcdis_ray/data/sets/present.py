"""Which of the listed images are there, by what opens; and what is missing, by name."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gcdis_ray.data.images.folder_images import is_image
from gcdis_ray.data.images.similar_names import similar_names
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, printed, some

_PATCH = re.compile(r"patch(\d+)")
_EXAMPLES = 3
_FETCH = "fetch them, or set partial: true for this set to go on without"
_ALLOW = "let the files and their folders be read"
_RENAME = "write file_name as the files are named, or rename them: nothing is guessed"


@dataclass(frozen=True)
class Missing:
    """Listed images that are not there."""

    total: int  # listed
    folders: tuple[str, ...]  # of which nothing is there
    in_folders: int  # images in those
    files: int  # images elsewhere
    examples: tuple[str, ...]  # of those elsewhere
    similar: Mapping[str, str] = field(default_factory=dict)  # missing name -> what is there
    refused: Mapping[str, str] = field(default_factory=dict)  # missing name -> why nobody may look

    @property
    def count(self) -> int:
        return self.in_folders + self.files

    @property
    def fix(self) -> str:
        if self.refused:
            return _ALLOW
        return _RENAME if self.similar else _FETCH

    def describe(self) -> str:
        parts = []
        if self.folders:
            parts.append(f"{_named(self.folders)} ({counted(self.in_folders, 'image')})")
        if self.files:
            examples = some(self.examples, _EXAMPLES, printed)
            parts.append(f"{counted(self.files, 'file')} such as {examples}")
        parts += [f"for {printed(name)} {there}" for name, there in self.similar.items()]
        parts += [f"{printed(name)} cannot be read ({why})" for name, why in self.refused.items()]
        missing = f"{self.count:,} of {counted(self.total, 'image')}"
        return f"{missing} {'is' if self.count == 1 else 'are'} missing: {'; '.join(parts)}"

    def error(self, where: str, others: str = "") -> DataError:
        """Args:
        others: more to say of what is there.
        """
        return DataError(self.describe() + others, where=where, fix=self.fix)


class Names:
    """A set of file names, as 8 bytes each."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hashes = np.unique(np.array(array("q", map(hash, names)), np.int64))

    def __contains__(self, name: str) -> bool:
        key = hash(name)  # 64 bits: among two million files two alike are one chance in 10^7
        place = int(np.searchsorted(self._hashes, key))
        return place < len(self._hashes) and int(self._hashes[place]) == key


class Listing(Names):
    """The files below a folder. A name is in it if a file opens by that name, listed or not."""

    def __init__(self, folder: SourceFolder, images: str) -> None:
        super().__init__(folder.names(images))
        self._folder, self._images = folder, images
        self._folders: dict[str, bool] = {}  # whether one is there

    def __contains__(self, name: str) -> bool:
        if super().__contains__(name) or not self._folder.has_aliases:
            return super().__contains__(name)
        parent = name.rpartition("/")[0]
        if parent not in self._folders:
            self._folders[parent] = self._folder.has_folder(f"{self._images}/{parent}")
        return self._folders[parent] and self._opens(name)

    def _opens(self, name: str) -> bool:
        try:
            return self._folder.state(f"{self._images}/{name}") is not None
        except OSError:
            return False

    def _refused(self, names: Iterable[str]) -> dict[str, str]:
        """Why they cannot be looked at, of those that cannot."""
        found: dict[str, str] = {}
        for name in names:
            try:
                self._folder.state(f"{self._images}/{name}")
            except OSError as error:
                found[name] = error.strerror or type(error).__name__
        return found

    def missing(self, names: Iterable[str]) -> Missing:
        """What of ``names`` is not there; 8 bytes of memory each."""
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
        files = [name for p in elsewhere for name in examples[p]][:_EXAMPLES]
        looked_for = [*files, *(examples[p][0] for p in whole[:_EXAMPLES])]
        refused = self._refused(looked_for)
        there = self._folder.names(self._images) if len(refused) < len(looked_for) else ()
        return Missing(
            total,
            tuple(whole),
            sum(absent[p] for p in whole),
            sum(absent[p] for p in elsewhere),
            tuple(files),
            similar_names(looked_for, there, self._is_image),
            refused,
        )

    def _is_image(self, name: str) -> bool:
        return is_image(self._folder, f"{self._images}/{name}")


def _named(folders: tuple[str, ...]) -> str:
    patches = [_PATCH.fullmatch(folder) for folder in folders]
    if all(patches):
        numbers = sorted(int(match[1]) for match in patches if match)
        return f"patch{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    return f"folder{'s' if len(folders) > 1 else ''} {some(folders, 8, printed)}"
