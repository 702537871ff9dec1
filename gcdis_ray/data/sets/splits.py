"""Which images are labeled, unlabeled or for validation, and which classes are known.

Nothing here reads an annotation: a set of images follows from image records, file names and lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, compress, islice
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.data.formats.class_folders import ClassFolders
from gcdis_ray.data.formats.records import AnnotationSource, CategoryRecord
from gcdis_ray.data.images.folder_images import LeftOut, image_names, most_frequent
from gcdis_ray.data.images.image_names import id_of_name
from gcdis_ray.data.sets.annotations import Selection
from gcdis_ray.data.sets.data_config import DataConfig, ImageSet
from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.data.sets.listed_images import (
    ListedSet,
    file_names,
    in_part,
    read_listed,
    uri_of,
)
from gcdis_ray.data.sets.present import Listing, Missing
from gcdis_ray.errors import DataError
from gcdis_ray.store.schemas import QUARANTINE
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, printed

_ROWS_AT_ONCE = 16_384
_FEDERATED = pa.schema(
    [
        (name, pa.list_(pa.int64()))
        for name in ("absent_category_ids", "not_exhaustive_category_ids")
    ]
)


@dataclass(frozen=True)
class SetPlan:
    """The images of one set."""

    config: ImageSet
    images: ImageList
    source: AnnotationSource | None  # None: a plain folder
    listed_ids: NDArray[np.int64]  # ids of all images of the source, sorted
    num_missing: int = 0  # listed, left out for want of their files; partial sets only
    left_out: LeftOut = field(default_factory=LeftOut)  # of a folder that nothing lists

    def missing(self, folder: SourceFolder) -> Missing:
        """Which of the images are not there."""
        return Listing(folder, self.config.images).missing(self.names())

    def names(self) -> Iterator[str]:
        """File names relative to the folder of images."""
        return file_names(self.images, self.config)

    def selection(self, category_ids: Collection[int] | None) -> Selection:
        """Its annotations, of these classes or of all."""
        assert self.source is not None
        return Selection(self.source, self.images, self.listed_ids, category_ids)


@dataclass(frozen=True)
class DataPlan:
    """All sets and the known classes."""

    folder: SourceFolder
    sets: Mapping[str, SetPlan]
    known: Sequence[CategoryRecord]  # position = class_index

    @property
    def images(self) -> dict[str, ImageList]:
        return {split: chosen.images for split, chosen in self.sets.items()}

    def left_out(self) -> Mapping[str, int]:
        """Files of the image folders that are no images, by kind; of each folder once."""
        folders = {chosen.config.images: chosen.left_out for chosen in self.sets.values()}
        return most_frequent(sum((found.counts for found in folders.values()), Counter[str]()))

    def check_present(self) -> None:
        """Raise DataError, which names them, if images are not there and must be."""
        found = {
            split: chosen.missing(self.folder)
            for split, chosen in self.sets.items()
            if chosen.source is not None and not chosen.config.partial
        }
        absent = [split for split, missing in found.items() if missing.count]
        if absent:
            total = sum(missing.total for missing in found.values())
            there = total - sum(missing.count for missing in found.values())
            others = (
                f"; of all {total:,} images of the sets {there:,} are there"
                if len(found) > 1
                else ""
            )
            if len(absent) == 1:
                raise found[absent[0]].error(f"stages.ingest.{absent[0]}.images", others)
            raise DataError(
                "; ".join(f"{split}: {found[split].describe()}" for split in absent) + others,
                where=" and ".join(f"stages.ingest.{split}.images" for split in absent),
                fix=found[absent[0]].fix,
            )

    def quarantine(self, split: str, rejected: Sequence[tuple[int, str]]) -> pa.Table:
        """Rows of ``quarantine`` for annotations: (row of the image or -1, reason)."""
        chosen = self.sets[split]
        name = PurePosixPath(chosen.source.name).name if chosen.source else ""
        uris = [chosen.images[row].uri if row >= 0 else name for row, _ in rejected]
        reasons = [reason for _, reason in rejected]
        return pa.table([[split] * len(reasons), uris, reasons], schema=QUARANTINE)

    def shards(self, images_per_shard: int) -> Iterator[tuple[str, int, int]]:
        """(split, first row, row behind the last) of every shard of images, in order."""
        for split, chosen in self.sets.items():
            total = len(chosen.images)
            for start in range(0, total, images_per_shard):
                yield split, start, min(start + images_per_shard, total)


def plan_data(config: DataConfig) -> DataPlan:
    """Resolve the config against what is there. Reads no image and no annotation.

    Raises:
        DataError: missing folder or file, empty set, sets that share an image or an image id,
            unknown class.
    """
    folder = config.open_root()
    for split in config.splits:
        images = config.image_set(split).images
        if not folder.has_folder(images):
            raise DataError(
                f"no such folder: {folder.uri}/{images}",
                where=f"stages.ingest.{split}.images",
                fix="check the folder's name",
            )
    listed = read_listed(folder, config)
    sets = {
        split: _resolve(folder, config.image_set(split), listed.sets.get(split), split)
        for split in config.splits
    }
    _check_apart(sets)
    _check_files_apart(folder, sets)
    return DataPlan(folder, sets, listed.known)


def _resolve(
    folder: SourceFolder, chosen: ImageSet, listed: ListedSet | None, split: str
) -> SetPlan:
    left_out = LeftOut()
    if listed is not None:
        source, images, listed_ids = listed.source, listed.images, listed.listed_ids
    else:
        source, images = None, _in_folder(folder, chosen, left_out)
        listed_ids = np.zeros(0, np.int64)
    if isinstance(source, ClassFolders):
        left_out = source.left_out
    total = len(images)
    if chosen.partial:
        there = Listing(folder, chosen.images)
        present = np.array([n in there for n in file_names(images, chosen)], bool)
        if total and not present.any():
            raise there.missing(file_names(images, chosen)).error(f"stages.ingest.{split}.images")
        images = images.take(present)
    if not len(images):
        what = f"no image file in {folder.uri}/{chosen.images}"
        what += f", but {left_out.describe()}" if left_out.total else ""
        raise DataError(
            what if source is None else f"no image of {source.name} is taken",
            where=f"stages.ingest.{split}",
            fix="give JPEG, PNG or WebP files; check image_ids, part and partial",
        )
    return SetPlan(chosen, images, source, listed_ids, total - len(images), left_out)


def federated_lists(chosen: SetPlan) -> pa.Table:
    """LVIS's lists of every image of a set, null where its file has none.

    Returns:
        ``absent_category_ids`` and ``not_exhaustive_category_ids``, a row per image.
    """
    if chosen.source is None or not chosen.source.federated:
        return pa.table(
            [pa.nulls(len(chosen.images), f.type) for f in _FEDERATED], schema=_FEDERATED
        )
    rows, lists = [np.zeros(0, np.int64)], [_FEDERATED.empty_table()]
    records = chosen.source.images()
    while some := list(islice(records, _ROWS_AT_ONCE)):
        row = chosen.images.rows_of(np.array([r.image_id for r in some], dtype=np.int64))
        rows.append(row[row >= 0])
        mine = list(compress(some, (row >= 0).tolist()))
        columns = [[r.absent for r in mine], [r.not_exhaustive for r in mine]]
        lists.append(pa.table(columns, schema=_FEDERATED))
    return pa.concat_tables(lists).take(np.argsort(np.concatenate(rows)))


def _in_folder(folder: SourceFolder, chosen: ImageSet, left_out: LeftOut) -> ImageList:
    """The images of a set without annotation files."""
    images = ImageList(_files(folder, chosen, left_out))
    return images if chosen.part is None else images.take(in_part(images, chosen))


def _files(folder: SourceFolder, chosen: ImageSet, left_out: LeftOut) -> Iterator[SourceImage]:
    for name in image_names(folder, chosen.images, left_out):
        uri = uri_of(chosen, name)
        image_id = id_of_name(f"shared {uri}" if chosen.shared else uri)
        yield SourceImage(image_id, uri, None, None, None)


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
        splits, uris = Counter[str](), []
        for split, found in images.items():
            here = found.table.filter(pc.equal(found.table[column], first))  # pyright: ignore[reportAttributeAccessIssue]
            splits.update([split] * here.num_rows)
            uris += here["uri"].to_pylist()
        where = " and ".join(f"stages.ingest.{split}" for split in sorted(splits))
        if column == "uri":
            fix = "keep the sets apart with image_ids or part, or set unlabeled.shared"
            if len(splits) == 1:
                fix = "the annotation file lists that name twice: keep one of the two records"
            raise DataError(
                f"{counted(len(shared), 'image occurs', 'images occur')} twice, "
                f"such as {printed(uris[0])}",
                where=where,
                fix=fix,
            )
        raise DataError(
            f"{counted(len(shared), 'image id stands', 'image ids stand')} for two images, "
            f"such as {first} for {' and '.join(map(printed, uris))}",
            where=where,
            fix="set ids: name in one of these sets, or renumber its file",
        )


def _check_files_apart(folder: SourceFolder, sets: Mapping[str, SetPlan]) -> None:
    """No file may be in two sets by two names: behind links, or written otherwise."""
    if not folder.has_aliases:
        return

    def real_names(split: str) -> Iterator[str]:
        return folder.real_names(sets[split].images.uris())

    hashes = {  # 64 bits: among two million files two alike are one chance in 10^7
        split: np.fromiter(map(hash, real_names(split)), np.int64, len(chosen.images))
        for split, chosen in sets.items()
    }
    for pair in combinations(sets, 2):
        if "labeled" in pair and any(sets[split].config.shared for split in pair):
            continue
        common = np.intersect1d(hashes[pair[0]], hashes[pair[1]])
        if not len(common):
            continue
        one, other = (
            next(
                uri
                for uri, name in zip(sets[split].images.uris(), real_names(split), strict=True)
                if hash(name) == common[0]
            )
            for split in pair
        )
        raise DataError(
            f"{counted(len(common), 'file is', 'files are')} in both by two names: "
            f"{printed(other)} is {printed(one)}",
            where=" and ".join(f"stages.ingest.{split}" for split in sorted(pair)),
            fix="take the link out of the folder, or keep the sets apart with image_ids or part"
            + (", or set unlabeled.shared" if pair == ("labeled", "unlabeled") else ""),
        )
