"""Names for files of an export: such as every file system can hold, and no two alike."""

from __future__ import annotations

import hashlib
import posixpath
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from gcdis_ray.data.images.image_check import image_format
from gcdis_ray.data.images.image_names import IMAGE_SUFFIXES
from gcdis_ray.errors import DataError

_REFUSED = frozenset('<>:"/\\|?*')  # by one file system or another
_LONGEST = 60  # characters of a part, of four bytes at most: file systems hold 255
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_FOLDERS = frozenset({"images", "labels"})  # YOLO finds labels by the last such part of a path


def safe_part(name: str) -> str:
    """A name as a file or folder of it can be called."""
    kept = "".join("_" if c in _REFUSED or not c.isprintable() else c for c in name)
    kept = kept[:_LONGEST].strip().rstrip(".") or "_"
    return f"_{kept}" if kept.split(".")[0].lower() in _DEVICES or kept[0] == "." else kept


def distinct_parts(names: Sequence[str]) -> list[str]:
    """:func:`safe_part` of each, numbered where two would be one, also where case is ignored."""
    taken, found = set[str](), []
    for name in names:
        part, number = safe_part(name), 1
        while part.casefold() in taken:
            number += 1
            part = f"{safe_part(name)[: _LONGEST - 6]} ({number})"
        taken.add(part.casefold())
        found.append(part)
    return found


@dataclass(frozen=True)
class ImageNames:
    """How the image files of an export are called: as in the data folder, without the folder that
    they have in common. Names that are one but for their ending get the image's id: labels are
    files of that name, too.

    Args:
        common: that folder, with a slash, or nothing.
        alike: digests of names without ending that several images have.
    """

    common: str
    alike: frozenset[int]

    @staticmethod
    def of(listed: Callable[[], Iterator[pa.Table]]) -> ImageNames:
        """Args: listed: gives tables with columns ``image_id`` and ``uri``, each time anew. What
        is kept of an image are 8 bytes.

        Raises:
            DataError: two images would still have one name.
        """
        names = ImageNames(_common_folder(listed()), frozenset())
        if alike := names._alike(listed()):
            names = ImageNames(names.common, alike)
            if names._alike(listed()):
                raise DataError(
                    "several images would have one name in the export",
                    fix="give their files names that differ in letters or numbers",
                )
        return names

    def name(self, image_id: int, uri: str, data: bytes) -> str:
        """Relative, with an ending by which programs find images.

        Args:
            data: the file, whose content says what it is.
        """
        stem, ending = self._parts(image_id, uri)
        if ending.lower() not in IMAGE_SUFFIXES:
            ending = _ENDINGS[image_format(data)]
        return stem + ending

    def _parts(self, image_id: int, uri: str) -> tuple[str, str]:
        stem, ending = posixpath.splitext(uri.removeprefix(self.common))
        parts = [safe_part(part) for part in PurePosixPath(stem).parts]
        parts[:-1] = [f"{part}_" if part.lower() in _FOLDERS else part for part in parts[:-1]]
        name = "/".join(parts)
        if _digest(name) in self.alike:
            name = f"{name}-{image_id}"
        return name, ending

    def _alike(self, listed: Iterator[pa.Table]) -> frozenset[int]:
        found = array("Q")
        for shard in listed:
            rows = zip(shard["image_id"].to_pylist(), shard["uri"].to_pylist(), strict=True)
            found.extend(_digest(self._parts(image_id, uri)[0]) for image_id, uri in rows)
        values = np.sort(np.array(found, np.uint64))
        return frozenset(values[1:][values[1:] == values[:-1]].tolist())


def _common_folder(listed: Iterator[pa.Table]) -> str:
    common: list[str] | None = None
    for shard in listed:
        for uri in shard["uri"].to_pylist():
            parts = uri.split("/")[:-1]
            if common is None:
                common = parts
            elif parts[: len(common)] != common:
                same = (a == b for a, b in zip(common, parts, strict=False))
                common = common[: sum(takewhile(bool, same))]
    return "/".join(common) + "/" if common else ""


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.casefold().encode()).digest()[:8], "big")
