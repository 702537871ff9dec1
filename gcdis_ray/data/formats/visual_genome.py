"""Visual Genome: the official ``objects.json`` with ``image_data.json`` beside it. Boxes only.

Krishna et al., "Visual Genome: connecting language and vision using crowdsourced dense image
annotations", IJCV 2017. A class is a WordNet synset; the words people wrote are not read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any, Literal

from gcdis_ray.data.formats.coco import (
    check_unique,
    safe_file_name,
)
from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.records.fields import image_size, whole, whole_number
from gcdis_ray.store.source import FileState, SourceFolder

_FIX = "give the official objects.json, with image_data.json beside it"


class VisualGenomeFile:
    """Images are named as below the folder that holds ``VG_100K`` and ``VG_100K_2``.

    Args:
        ids: ``coco`` numbers images as COCO does and leaves out those that are not in COCO.
        except_coco_ids: leave out images that are these ones of COCO.
    """

    federated = False
    labels_images = False

    def __init__(
        self,
        folder: SourceFolder,
        name: str,
        ids: Literal["file", "coco"] = "file",
        except_coco_ids: Collection[int] = (),
    ) -> None:
        self.objects = JsonFile(folder, name, _FIX)
        beside = str(PurePosixPath(name).with_name("image_data.json"))
        self.image_data = JsonFile(folder, beside, _FIX)
        self.ids, self.except_coco_ids = ids, except_coco_ids
        self.has_annotations = True

    @property
    def name(self) -> str:
        return self.objects.path

    @property
    def num_images(self) -> int | None:
        everything = self.ids == "file" and not self.except_coco_ids
        return self.image_data.outline.lists.get("") if everything else None

    @property
    def categories(self) -> Sequence[CategoryRecord]:
        """Synsets in the order of their names, numbered from 1. Reads the objects once."""
        return self._categories

    @cached_property
    def _categories(self) -> list[CategoryRecord]:
        names = _synsets(self.objects.folder, self.objects.name, self._state)
        return [CategoryRecord(i, name, synset=name) for i, name in enumerate(names, 1)]

    @property
    def _state(self) -> FileState | None:
        return self.objects.folder.state(self.objects.name)

    def images(self) -> Iterator[ImageRecord]:
        """Raises DataError as that of a COCO file."""
        ids = array("q")
        for position, raw in enumerate(self.image_data.records()):
            where = self.image_data.place("", position)
            _, image_id = self._ids_of(raw, where)
            if image_id is None:
                continue
            ids.append(image_id)
            url = raw.get("url")
            if not isinstance(url, str):
                raise DataError("no 'url'", where=where, fix=_FIX)
            name = safe_file_name("/".join(url.split("/")[-2:]), where)
            yield ImageRecord(image_id, name, *image_size(raw, where))
        check_unique(ids, self.image_data.path)

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        """One per object, of the first of its synsets; objects without one are passed over."""
        passed_over = Counter() if passed_over is None else passed_over
        category_of = {c.synset: c.category_id for c in self.categories}
        image_id_of = dict(
            self._ids_of(raw, self.image_data.place("", position))
            for position, raw in enumerate(self.image_data.records())
        )
        for position, raw in enumerate(self.objects.records()):
            where = self.objects.place("", position)
            own = whole(raw, "image_id", where)
            image_id = image_id_of.get(own, own)  # an unlisted image is the caller's to refuse
            for item in _objects(raw, where):
                if image_id is None:
                    passed_over["on an image that is left out"] += 1
                elif (synset := _synset(item)) is None:
                    passed_over["object without synset"] += 1
                else:
                    yield {
                        "id": item.get("object_id"),
                        "image_id": image_id,
                        "category_id": category_of.get(synset),
                        "bbox": [item.get(side) for side in "xywh"],
                        "iscrowd": 0,
                    }

    def _ids_of(self, raw: Mapping[str, Any], where: str) -> tuple[int, int | None]:
        """(the file's own image id, the id to use or None to leave the image out)"""
        own = whole(raw, "image_id", where)
        in_coco = whole_number(raw.get("coco_id"))
        if in_coco is not None and in_coco in self.except_coco_ids:
            return own, None
        return own, own if self.ids == "file" else in_coco


@lru_cache(maxsize=4)  # the same file serves several sets
def _synsets(folder: SourceFolder, name: str, state: FileState | None) -> tuple[str, ...]:
    file = JsonFile(folder, name, _FIX)
    found: set[str] = set()
    for position, raw in enumerate(file.records()):
        for item in _objects(raw, file.place("", position)):
            if (synset := _synset(item)) is not None:
                found.add(synset)
    return tuple(sorted(found))


def _objects(raw: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    items = raw.get("objects")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError("no list of 'objects'", where=where, fix=_FIX)
    return items


def _synset(item: Mapping[str, Any]) -> str | None:
    synsets = item.get("synsets")
    first = synsets[0] if isinstance(synsets, list) and synsets else None
    return first if isinstance(first, str) and first else None
