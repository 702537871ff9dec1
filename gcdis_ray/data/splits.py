"""Which images are labeled, unlabeled or for validation, and which classes are known.

Nothing here reads an annotation: a set of images follows from image records, file names and lists.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import compress, islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.artifacts import SCHEMAS
from gcdis_ray.data.annotations import Selection
from gcdis_ray.data.data_config import SPLITS, DataConfig, ImageSet, JsonList
from gcdis_ray.data.formats import open_sets
from gcdis_ray.data.image_list import ImageList, SourceImage, is_in
from gcdis_ray.data.json_lists import read_ids, read_names
from gcdis_ray.data.present import Listing, Missing
from gcdis_ray.data.records import AnnotationSource, CategoryRecord
from gcdis_ray.errors import DataError
from gcdis_ray.source import SourceFolder, open_source

_ROWS_AT_ONCE = 16_384
_FEDERATED = pa.schema(
    [
        (name, pa.list_(pa.int64()))
        for name in ("absent_category_ids", "not_exhaustive_category_ids")
    ]
)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class SetPlan:
    """The images of one set."""

    config: ImageSet
    images: ImageList
    source: AnnotationSource | None  # None: a plain folder
    listed_ids: NDArray[np.int64]  # ids of all images of the annotation file, sorted
    num_missing: int = 0  # listed, left out for want of their files; partial sets only

    def check_present(self, folder: SourceFolder, where: str) -> None:
        """Raise DataError, which names them, if images are not there and must be."""
        if not self.config.partial and (missing := self.missing(folder)).count:
            raise missing.error(where)

    def missing(self, folder: SourceFolder) -> Missing:
        """Which of the images are not there."""
        return Listing(folder, self.config.images).missing(self.names())

    def names(self) -> Iterator[str]:
        """File names relative to the folder of images."""
        return _names(self.images, self.config)

    def selection(self, category_ids: Collection[int] | None) -> Selection:
        """Its annotations, of these classes or of all."""
        assert self.source is not None
        return Selection(self.source, self.images, self.listed_ids, category_ids)


@dataclass(frozen=True)
class DataPlan:
    """All three sets and the known classes."""

    folder: SourceFolder
    sets: Mapping[str, SetPlan]
    known: Sequence[CategoryRecord]  # position = class_index

    @property
    def images(self) -> dict[str, ImageList]:
        return {split: chosen.images for split, chosen in self.sets.items()}

    def quarantine(self, split: str, rejected: Sequence[tuple[int, str]]) -> pa.Table:
        """Rows of ``quarantine`` for annotations: (row of the image or -1, reason)."""
        chosen = self.sets[split]
        name = PurePosixPath(chosen.source.name).name if chosen.source else ""
        uris = [chosen.images[row].uri if row >= 0 else name for row, _ in rejected]
        reasons = [reason for _, reason in rejected]
        return pa.table([[split] * len(reasons), uris, reasons], schema=SCHEMAS["quarantine"])

    def shards(self, images_per_shard: int) -> Iterator[tuple[str, int, int]]:
        """(split, first row, row behind the last) of every shard of images, in order."""
        for split in SPLITS:
            total = len(self.sets[split].images)
            for start in range(0, total, images_per_shard):
                yield split, start, min(start + images_per_shard, total)


def plan_data(config: DataConfig) -> DataPlan:
    """Resolve the config against what is there. Reads no image and no annotation.

    Raises:
        DataError: missing folder or file, empty set, sets that share an image or an image id,
            unknown class.
    """
    folder = open_source(config.root)
    sources = open_sets(folder, config)
    sets = {
        split: _resolve(
            folder, config.image_set(split), sources.get(split), f"stages.ingest.{split}"
        )
        for split in SPLITS
    }
    _check_apart(sets)
    labeled = sets["labeled"].source
    assert labeled is not None  # the config asks for it
    return DataPlan(folder, sets, _known(config, folder, labeled.categories))


def _resolve(
    folder: SourceFolder, chosen: ImageSet, source: AnnotationSource | None, where: str
) -> SetPlan:
    if not folder.has_folder(chosen.images):
        raise DataError(
            f"no such folder: {folder.uri}/{chosen.images}",
            where=f"{where}.images",
            fix="check the folder's name",
        )
    listed_ids, num_missing = np.zeros(0, np.int64), 0
    if source is None:
        images = ImageList(_folder_images(folder, chosen))
    else:
        images, listed_ids = _listed(folder, chosen, source, where)
    if chosen.part is not None:
        images = images.take(_in_part(images, chosen))
    if chosen.partial:
        listing, total = Listing(folder, chosen.images), len(images)
        images = images.take(np.array([name in listing for name in _names(images, chosen)], bool))
        num_missing = total - len(images)
    if not len(images):
        what = f"no image file in {folder.uri}/{chosen.images}"
        raise DataError(
            what if source is None else f"no image of {source.name} is taken",
            where=where,
            fix=f"give images ({', '.join(_SUFFIXES)}); check image_ids, part and partial",
        )
    return SetPlan(chosen, images, source, listed_ids, num_missing)


def federated_lists(chosen: SetPlan) -> pa.Table:
    """LVIS's lists of every image of a set, null where its file has none.

    Returns:
        ``absent_category_ids`` and ``not_exhaustive_category_ids``, a row per image.
    """
    rows, lists = [np.zeros(0, np.int64)], [_FEDERATED.empty_table()]
    records = chosen.source.images() if chosen.source else iter(())
    while some := list(islice(records, _ROWS_AT_ONCE)):
        row = chosen.images.rows_of(np.array([r.image_id for r in some], dtype=np.int64))
        rows.append(row[row >= 0])
        mine = list(compress(some, (row >= 0).tolist()))
        columns = [[r.absent for r in mine], [r.not_exhaustive for r in mine]]
        lists.append(pa.table(columns, schema=_FEDERATED))
    if not chosen.source:
        return pa.table(
            [pa.nulls(len(chosen.images), f.type) for f in _FEDERATED], schema=_FEDERATED
        )
    return pa.concat_tables(lists).take(np.argsort(np.concatenate(rows)))


def _folder_images(folder: SourceFolder, chosen: ImageSet) -> Iterator[SourceImage]:
    for name in folder.names(chosen.images):
        path = PurePosixPath(name)
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
            uri = _uri(chosen, name)
            image_id = _id_of_name(f"shared {uri}" if chosen.shared else uri)
            yield SourceImage(image_id, uri, None, None, None)


def _listed(
    folder: SourceFolder, chosen: ImageSet, source: AnnotationSource, where: str
) -> tuple[ImageList, NDArray[np.int64]]:
    """The images that are taken, and the ids of all that the file lists, sorted."""
    wanted = unwanted = None
    if chosen.image_ids is not None:
        wanted = read_ids(folder, chosen.image_ids, f"{where}.image_ids")
    if chosen.except_image_ids is not None:
        unwanted = read_ids(folder, chosen.except_image_ids, f"{where}.except_image_ids")
    listed: list[NDArray[np.int64]] = []

    def taken() -> Iterator[SourceImage]:
        records = source.images()
        while some := list(islice(records, _ROWS_AT_ONCE)):
            ids = np.array([record.image_id for record in some], dtype=np.int64)
            listed.append(ids)
            take = np.ones(len(ids), bool) if wanted is None else is_in(ids, wanted)
            if unwanted is not None:
                take &= ~is_in(ids, unwanted)
            for record in compress(some, take.tolist()):
                uri = _uri(chosen, record.file_name)
                image_id = record.image_id if chosen.ids == "file" else _id_of_name(uri)
                image_id = _id_of_name(f"shared {uri}") if chosen.shared else image_id
                yield SourceImage(image_id, uri, record.height_px, record.width_px, record.image_id)

    images = ImageList(taken())
    listed_ids = np.sort(np.concatenate(listed)) if listed else np.zeros(0, np.int64)
    if wanted is not None and not chosen.partial:
        absent = wanted[~is_in(wanted, listed_ids)]
        if len(absent):
            raise DataError(
                f"{len(absent)} image ids are not in {source.name}, such as {absent[0]}",
                where=f"{where}.image_ids",
                fix="list ids of that file",
            )
    return images, listed_ids


def _in_part(images: ImageList, chosen: ImageSet) -> NDArray[np.bool_]:
    """Which images a set's ``part`` takes, by where the hashes of their names fall.

    Names without their folders: files that list one image below different folders agree.
    """
    assert chosen.part is not None
    low, high = chosen.part
    names = (name.rpartition("/")[2] for name in _names(images, chosen))
    shares = (_share(name, chosen.part_seed) for name in names)
    share = np.fromiter(shares, np.float64, len(images))
    if chosen.part_by == "hash":
        return (share >= low) & (share < high)
    names = np.array([name.rpartition("/")[2] for name in _names(images, chosen)])
    place, total = np.empty(len(names), dtype=np.int64), len(names)
    place[np.lexsort((names, share))] = np.arange(total)
    return (place >= round(low * total)) & (place < round(high * total))


def _names(images: ImageList, chosen: ImageSet) -> Iterator[str]:
    """File names relative to the folder of images."""
    prefix = 0 if chosen.images == "." else len(chosen.images.rstrip("/")) + 1
    return (uri[prefix:] for uri in images.uris())


def _uri(chosen: ImageSet, name: str) -> str:
    return name if chosen.images == "." else f"{chosen.images}/{name}"


def _id_of_name(uri: str) -> int:
    """53 bits: exact in JSON and in a double."""
    return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big") >> 11


def _share(name: str, seed: int) -> float:
    """Where in [0, 1) a file name falls, whatever the other files are."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big") / 2**48


def _check_apart(sets: Mapping[str, SetPlan]) -> None:
    """No image may occur twice, in one set or in two, nor an id stand for two images. A shared set
    may have images of the labeled one."""
    every_image = {split: chosen.images for split, chosen in sets.items()}
    apart = [every_image]
    for split, chosen in sets.items():
        if chosen.config.shared:
            apart = [{s: i for s, i in every_image.items() if s != t} for t in ("labeled", split)]
    for column, images in (*(("uri", images) for images in apart), ("image_id", every_image)):
        every = pa.concat_tables(found.table.select([column]) for found in images.values())
        counts = pc.value_counts(every[column])  # pyright: ignore[reportAttributeAccessIssue]
        values, times = counts.field("values"), counts.field("counts")
        shared = values.filter(pc.greater(times, 1))  # pyright: ignore[reportAttributeAccessIssue]
        if not len(shared):
            continue
        first = shared[0]
        splits, uris = [], []
        for split, found in images.items():
            here = found.table.filter(pc.equal(found.table[column], first))  # pyright: ignore[reportAttributeAccessIssue]
            splits += [split] * min(here.num_rows, 1)
            uris += here["uri"].to_pylist()
        where = " and ".join(f"stages.ingest.{split}" for split in sorted(splits))
        if column == "uri":
            raise DataError(
                f"{len(shared)} images occur twice, such as {first}",
                where=where,
                fix="keep the sets apart with image_ids or part, or set unlabeled.shared",
            )
        raise DataError(
            f"{len(shared)} image ids stand for two images, such as {first} for "
            + " and ".join(uris),
            where=where,
            fix="set ids: name in one of these sets, or renumber its file",
        )


# ---------------------------------------------------------------- known classes


def _known(
    config: DataConfig, folder: SourceFolder, categories: Sequence[CategoryRecord]
) -> list[CategoryRecord]:
    where = "stages.ingest.known_classes"
    wanted = config.known_classes
    if wanted == "all":
        wanted = [category.category_id for category in categories]
    elif isinstance(wanted, JsonList):
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
