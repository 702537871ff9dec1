"""Which images are labeled, unlabeled or for validation, and which classes are known.

Nothing here reads an annotation: a set of images follows from image records, file names and lists.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gcdis_ray.data.data_config import SPLITS, DataConfig, ImageSet, JsonList
from gcdis_ray.data.formats import open_sets
from gcdis_ray.data.json_lists import read_ids, read_names
from gcdis_ray.data.records import AnnotationSource, CategoryRecord
from gcdis_ray.errors import DataError
from gcdis_ray.source import SourceFolder, open_source

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class SourceImage:
    """An image to read. Sizes are those of the annotation file, None for a plain folder."""

    image_id: int
    uri: str  # relative to root
    height_px: int | None
    width_px: int | None
    file_id: int | None  # the annotation file's own id


@dataclass(frozen=True)
class DataPlan:
    """All three sets, each by rising image id, and the known classes."""

    root: Path
    images: Mapping[str, Sequence[SourceImage]]
    files: Mapping[str, AnnotationSource]  # of the sets that have one
    known: Sequence[CategoryRecord]  # position = class_index


def plan_data(config: DataConfig) -> DataPlan:
    """Resolve the config against what is on disk. Reads no image and no annotation.

    Raises:
        DataError: missing folder or file, empty set, sets that share an image or an image id,
            unknown class.
    """
    folder = open_source(config.root)
    root = Path(folder.uri)
    files = open_sets(folder, config)
    images = {
        split: _resolve(folder, config.image_set(split), files.get(split), f"stages.ingest.{split}")
        for split in SPLITS
    }
    _check_apart(images)
    return DataPlan(root, images, files, _known(config, folder, files["labeled"].categories))


def _resolve(
    source: SourceFolder, chosen: ImageSet, coco: AnnotationSource | None, where: str
) -> list[SourceImage]:
    folder = Path(source.uri) / chosen.images
    if not folder.is_dir():
        raise DataError(
            f"no such folder: {folder}", where=f"{where}.images", fix="check the folder's name"
        )
    found = _folder_images(folder, chosen) if coco is None else _listed(source, chosen, coco, where)
    if chosen.part is not None:
        low, high = chosen.part
        prefix = len(chosen.images.rstrip("/")) + 1 if chosen.images != "." else 0
        found = [
            image for image in found if low <= _share(image.uri[prefix:], chosen.part_seed) < high
        ]
    if not found:
        what = f"no image file in {folder}" if coco is None else f"no image of {coco.name} is taken"
        raise DataError(
            what, where=where, fix=f"give images ({', '.join(_SUFFIXES)}); check image_ids and part"
        )
    return sorted(found, key=lambda image: image.image_id)


def _folder_images(folder: Path, chosen: ImageSet) -> list[SourceImage]:
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    uris = (_uri(chosen, name) for name in names)
    return [SourceImage(_id_of_name(uri), uri, None, None, None) for uri in uris]


def _listed(
    source: SourceFolder, chosen: ImageSet, coco: AnnotationSource, where: str
) -> list[SourceImage]:
    wanted = None
    if chosen.image_ids is not None:
        wanted = set(read_ids(source, chosen.image_ids, f"{where}.image_ids").tolist())
    found = []
    for record in coco.images():
        if wanted is None or record.image_id in wanted:
            uri = _uri(chosen, record.file_name)
            image_id = record.image_id if chosen.ids == "file" else _id_of_name(uri)
            found.append(
                SourceImage(image_id, uri, record.height_px, record.width_px, record.image_id)
            )
    if wanted is not None and (absent := wanted - {image.file_id for image in found}):
        raise DataError(
            f"{len(absent)} image ids are not in {coco.name.rpartition('/')[2]}, "
            f"such as {min(absent)}",
            where=f"{where}.image_ids",
            fix="list ids of that file",
        )
    return found


def _uri(chosen: ImageSet, name: str) -> str:
    return name if chosen.images == "." else f"{chosen.images}/{name}"


def _id_of_name(uri: str) -> int:
    """53 bits: exact in JSON and in a double."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big") >> 11


def _share(name: str, seed: int) -> float:
    """Where in [0, 1) a file name falls, whatever the other files are."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big") / 2**48


def _check_apart(images: Mapping[str, Sequence[SourceImage]]) -> None:
    by_uri, by_id = defaultdict(list), defaultdict(list)
    for split, found in images.items():
        for image in found:
            by_uri[image.uri].append(split)
            by_id[image.image_id].append((split, image.uri))
    shared = [(uri, splits) for uri, splits in by_uri.items() if len(splits) > 1]
    if shared:
        uri, splits = shared[0]
        where = " and ".join(f"stages.ingest.{split}" for split in sorted(set(splits)))
        raise DataError(
            f"{len(shared)} images occur twice, such as {uri}",
            where=where,
            fix="keep the sets apart with image_ids or part",
        )
    clashes = [(image_id, uses) for image_id, uses in by_id.items() if len(uses) > 1]
    if clashes:
        image_id, uses = clashes[0]
        raise DataError(
            f"{len(clashes)} image ids stand for two images, such as {image_id} for "
            + " and ".join(uri for _, uri in uses),
            where=" and ".join(f"stages.ingest.{split}" for split in sorted({s for s, _ in uses})),
            fix="set ids: name in one of these sets, or renumber its file",
        )


# ---------------------------------------------------------------- known classes


def _known(
    config: DataConfig, folder: SourceFolder, categories: Sequence[CategoryRecord]
) -> list[CategoryRecord]:
    where = "stages.ingest.known_classes"
    wanted = config.known_classes
    if wanted == "all":
        return list(categories)
    if isinstance(wanted, JsonList):
        wanted = read_names(folder, wanted, where)
    by_name: dict[str, list[CategoryRecord]] = defaultdict(list)
    for category in categories:
        by_name[category.name].append(category)
    by_id = {category.category_id: category for category in categories}
    known: dict[int, CategoryRecord] = {}
    for entry in wanted:
        matches = by_name.get(entry, []) if isinstance(entry, str) else []
        if isinstance(entry, int) and entry in by_id:
            matches = [by_id[entry]]
        if len(matches) > 1:
            ids = [category.category_id for category in matches]
            raise DataError(f"{entry!r} names categories {ids}", where=where, fix="give the id")
        if not matches:
            raise DataError(f"no class {entry!r}", where=where, fix=_suggest(entry, categories))
        known[matches[0].category_id] = matches[0]
    if not known:
        raise DataError("no known class", where=where, fix=_suggest(None, categories))
    return [known[category_id] for category_id in sorted(known)]


def _suggest(entry: Any, categories: Sequence[CategoryRecord]) -> str:
    if isinstance(entry, int):
        near = sorted((c.category_id for c in categories), key=lambda i: (abs(i - entry), i))[:5]
        return f"the nearest ids are {near}"
    names = [category.name for category in categories]
    near = get_close_matches(str(entry), names, n=3, cutoff=0.5) if entry else []
    return "did you mean " + ", ".join(map(repr, near)) if near else f"valid are {names[:8]} ..."
