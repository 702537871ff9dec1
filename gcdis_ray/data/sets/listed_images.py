"""What annotation files, class folders, id lists and parts say about the sets: which images, which
known classes.

Where files say it all no image folder is looked into, so that what was found holds as long as those
files do: a command that plans its data several times reads them once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.data.formats.class_folders import ClassFolders
from gcdis_ray.data.formats.open_file import open_sets
from gcdis_ray.data.formats.records import AnnotationSource, CategoryRecord
from gcdis_ray.data.images.image_names import id_of_name
from gcdis_ray.data.sets.data_config import CLASS_FOLDERS, DataConfig, ImageSet, NewImages
from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.data.sets.json_lists import read_ids
from gcdis_ray.data.sets.known_classes import known_classes
from gcdis_ray.errors import DataError
from gcdis_ray.lookup import is_in
from gcdis_ray.store.source import FileState, SourceFolder
from gcdis_ray.words import counted

_States = tuple[FileState | None, ...]


@dataclass(frozen=True)
class ListedSet:
    """The images of a set that has annotations, whether they are there or not."""

    source: AnnotationSource
    images: ImageList
    listed_ids: NDArray[np.int64]  # ids of all images of the source, sorted


@dataclass(frozen=True)
class Listed:
    sets: Mapping[str, ListedSet]  # by split; none for plain folders
    known: Sequence[CategoryRecord]  # by rising id


def read_listed(folder: SourceFolder, config: DataConfig) -> Listed:
    """Reads the files that a config names, unless nothing has changed since the last time.

    Raises:
        DataError: as :func:`open_sets` and :func:`known_classes`; a listed id is in no file.
    """
    said = config.model_dump_json(include=set(DataConfig.model_fields))
    states = _states(folder, config)
    read = _read if states is not None else _read.__wrapped__
    kind = NewImages if isinstance(config, NewImages) else DataConfig
    return read(folder, said, states, kind)


def _states(folder: SourceFolder, config: DataConfig) -> _States | None:
    """Of all files that are read. None if some are not named: those beside a list of VOC's, or in
    class folders."""
    names = config.files()
    formats = {config.image_set(split).format for split in config.splits}
    if formats & {"voc", CLASS_FOLDERS} or any(name.endswith(".txt") for name in names):
        return None
    beside = {str(PurePosixPath(name).with_name("image_data.json")) for name in names}
    return tuple(folder.state(name) for name in (*names, *sorted(beside)))


@lru_cache(maxsize=1)  # one set of data a command; columns, some 80 bytes an image
def _read(
    folder: SourceFolder, said: str, states: _States | None, kind: type[DataConfig]
) -> Listed:
    config = kind.model_validate_json(said)
    whole: dict[tuple[int, str, str, bool], ImageList] = {}
    sets: dict[str, ListedSet] = {}
    sources = open_sets(folder, config)
    labeled = sources.get("labeled")
    known = known_classes(config, folder, labeled.categories) if labeled else []
    for split, source in sources.items():
        chosen = config.image_set(split)
        same = id(source), chosen.images, chosen.ids, chosen.shared
        if same not in whole:
            whole[same] = ImageList(_images(source, chosen))
        taken = _taken(folder, chosen, source, whole[same], f"stages.ingest.{split}")
        if split == "labeled" and isinstance(source, ClassFolders):
            images = _of_classes(taken.images, source, chosen, {c.category_id for c in known})
            taken = replace(taken, images=images)
        sets[split] = taken
    return Listed(sets, known)


def _images(source: AnnotationSource, chosen: ImageSet) -> Iterator[SourceImage]:
    """All images of a source, with the uris and ids that they have in a set."""
    for record in source.images():
        uri = uri_of(chosen, record.file_name)
        image_id = record.image_id if chosen.ids == "file" else id_of_name(uri)
        image_id = id_of_name(f"shared {uri}") if chosen.shared else image_id
        yield SourceImage(image_id, uri, record.height_px, record.width_px, record.image_id)


def _of_classes(
    images: ImageList, source: ClassFolders, chosen: ImageSet, wanted: Collection[int]
) -> ImageList:
    """Those in the folders of some classes. Others are of no known class, and may be unlabeled."""
    ids = (source.category_of(name) for name in file_names(images, chosen))
    return images.take(np.array([category_id in wanted for category_id in ids], np.bool_))


def _taken(
    folder: SourceFolder, chosen: ImageSet, source: AnnotationSource, images: ImageList, where: str
) -> ListedSet:
    """What a set takes of all images of its source, but for those that are missing."""
    file_id = images.table["file_id"].to_numpy()
    listed_ids, take = np.sort(file_id), np.ones(len(images), dtype=np.bool_)
    if chosen.image_ids is not None:
        wanted = read_ids(folder, chosen.image_ids, f"{where}.image_ids")
        take &= is_in(file_id, wanted)
        absent = wanted[~is_in(wanted, listed_ids)]
        if len(absent) and not chosen.partial:
            raise DataError(
                f"{counted(len(absent), 'image id is', 'image ids are')} not in {source.name}, "
                f"such as {absent[0]}",
                where=f"{where}.image_ids",
                fix="list ids of that file",
            )
    if chosen.except_image_ids is not None:
        unwanted = read_ids(folder, chosen.except_image_ids, f"{where}.except_image_ids")
        take &= ~is_in(file_id, unwanted)
    if not take.all():
        images = images.take(take)
    if chosen.part is not None:
        images = images.take(in_part(images, chosen))
    return ListedSet(source, images, listed_ids)


# ---------------------------------------------------------------- names, and what follows from them


def in_part(images: ImageList, chosen: ImageSet) -> NDArray[np.bool_]:
    """Which images a set's ``part`` takes, by where the hashes of their names fall.

    Names without their folders: files that list one image below different folders agree. In class
    folders, which often number their images alike, the class belongs to the name.
    """
    assert chosen.part is not None
    low, high = chosen.part
    shares = (_share(name, chosen.part_seed) for name in _part_names(images, chosen))
    share = np.fromiter(shares, np.float64, len(images))
    if chosen.part_by == "hash":
        return (share >= low) & (share < high)
    names = np.array(list(_part_names(images, chosen)))
    place, total = np.empty(len(names), dtype=np.int64), len(names)
    place[np.lexsort((names, share))] = np.arange(total)
    return (place >= round(low * total)) & (place < round(high * total))


def _part_names(images: ImageList, chosen: ImageSet) -> Iterator[str]:
    names = file_names(images, chosen)
    return names if chosen.has_class_folders else (name.rpartition("/")[2] for name in names)


def file_names(images: ImageList, chosen: ImageSet) -> Iterator[str]:
    """File names relative to the folder of images."""
    prefix = 0 if chosen.images == "." else len(chosen.images.rstrip("/")) + 1
    return (uri[prefix:] for uri in images.uris())


def uri_of(chosen: ImageSet, name: str) -> str:
    """Relative to root, as ``uri`` of an image is."""
    return name if chosen.images == "." else f"{chosen.images}/{name}"


def _share(name: str, seed: int) -> float:
    """Where in [0, 1) a file name falls, whatever the other files are."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big") / 2**48
