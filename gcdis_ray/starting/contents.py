"""What lies in a folder: images, and the files that may tell of them.

Of images no more is read than tells what they are. A JSON file is read once, as a stream, to see
what kind it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gcdis_ray.data.images.folder_images import sorted_out
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.files.json_outline import Outline
from gcdis_ray.store.source import SourceFolder

Kind = Literal["annotations", "results", "lists"]
_ROLES: Mapping[str, tuple[str, ...]] = {  # the first that has a word of the name
    "unlabeled": ("unlabeled", "unlabelled", "unannotated"),
    "labeled": ("labeled", "labelled"),
    "validation": ("val", "valid", "validation", "minival", "test"),
    "train": ("train", "training", "trainval"),
}
_VOC_LIST = re.compile(r"(?:.*/)?ImageSets/Segmentation/[^/]+\.txt")
_MAX_DEPTH, _MAX_FILES = 4, 50  # of JSON files that are looked into


def words(name: str) -> list[str]:
    """``instances_val2017.json`` -> instances, val, json."""
    return re.findall("[a-z]+", name.lower())


def role_of(name: str) -> str | None:
    """Which set a file, folder or key is of, by the words of its name: ``labeled``, ``unlabeled``,
    ``validation``, ``train``, or none of them."""
    found = set(words(name))
    return next((role for role, names in _ROLES.items() if found & set(names)), None)


@dataclass(frozen=True)
class Contents:
    """Args:
    images: names of all image files, sorted.
    json_files: names of those JSON files that are not too deep, the nearest first.
    voc_lists: lists of image names as VOC has them.
    """

    folder: SourceFolder
    images: Sequence[str]
    json_files: Sequence[str]
    voc_lists: Sequence[str]

    @classmethod
    def read(cls, folder: SourceFolder) -> Contents:
        images, jsons, lists = [], [], []
        for name, kind in sorted_out(folder, "."):
            if kind is None:
                images.append(name)
            elif name.endswith(".json") and name.count("/") < _MAX_DEPTH:
                jsons.append(name)
            elif _VOC_LIST.fullmatch(name):
                lists.append(name)
        nearest = sorted(jsons, key=lambda name: (name.count("/"), name))[:_MAX_FILES]
        return cls(folder, sorted(images), nearest, sorted(lists))

    @cached_property
    def _outlines(self) -> dict[str, Outline | DataError]:
        found: dict[str, Outline | DataError] = {}
        for name in self.json_files:
            try:
                found[name] = JsonFile(self.folder, name).outline
            except DataError as error:
                found[name] = error
        return found

    @property
    def damaged(self) -> list[DataError]:
        """What is wrong with JSON files that cannot be read."""
        return [found for found in self._outlines.values() if isinstance(found, DataError)]

    def of_kind(self, kind: Kind) -> list[str]:
        """JSON files of a kind, the nearest first."""
        return [
            name
            for name, outline in self._outlines.items()
            if isinstance(outline, Outline) and _kind(outline) == kind
        ]

    def lists(self, name: str) -> list[str]:
        """Names of the lists in a JSON file, the shortest first."""
        outline = self._outlines[name]
        found = outline.lists if isinstance(outline, Outline) else ()
        return sorted(found, key=lambda key: (len(key), key))

    def folder_of(self, names: Iterable[str], told_by: str) -> str | None:
        """The folder that files of these names are below; None if there is none.

        Of several it is the one that has most of them, then the one whose name is most like that of
        the file that names them, then the nearest.
        """
        found: Counter[str] = Counter()
        for name in names:
            end = f"/{name}"
            for image in self.images:
                if image == name:
                    found["."] += 1
                elif image.endswith(end):
                    found[image[: -len(end)]] += 1
        alike = set(words(told_by))
        return min(
            found,
            key=lambda at: (-found[at], -len(alike & set(words(at))), at.count("/"), at),
            default=None,
        )

    def results_beside(self, names: Iterable[str]) -> list[str]:
        """Files of masks that lie at the top or in the folder of one of these files."""
        at = {"", *(name.rpartition("/")[0] for name in names)}
        return [name for name in self.of_kind("results") if name.rpartition("/")[0] in at]

    def class_folders(self, below: str) -> dict[str, int]:
        """Folders directly in ``below`` that have images in them -> how many."""
        start = "" if below == "." else f"{below}/"
        inside = (name[len(start) :] for name in self.images if name.startswith(start))
        return dict(Counter(name.partition("/")[0] for name in inside if "/" in name))

    def folders_of(self, role: str, below: str) -> list[str]:
        """Folders in ``below`` with images and a name of that role, the shortest first."""
        start = "" if below == "." else f"{below}/"
        names = [name for name in self.class_folders(below) if role_of(name) == role]
        return [start + name for name in sorted(names, key=lambda name: (len(name), name))]


def _kind(outline: Outline) -> Kind | None:
    fields: Mapping[str, Collection[str]] = outline.fields
    if {"image_id", "segmentation"} <= set(fields.get("", ())):
        return "results"
    if "objects" in fields.get("", ()) or "id" in fields.get("images", ()):
        return "annotations"
    if outline.lists and not any(fields.values()):
        return "lists"
    return None
