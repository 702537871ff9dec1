"""One label space for annotation files that number their classes differently.

The first file of ``label_space`` says which ids there are; a class of another file is found among
them by its WordNet synset or its name. Objects of classes that are not found are passed over, and
counted.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gcdis_ray.data.formats.records import (
    AnnotationSource,
    CategoryRecord,
    ImageRecord,
    NoCategory,
)
from gcdis_ray.data.sets.data_config import NameMap, SynsetFile
from gcdis_ray.errors import DataError
from gcdis_ray.records.fields import whole_number
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import shown, some

_WHERE = "stages.ingest.label_space"
_MAX_SYNSET_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Labels:
    """The classes of a run."""

    categories: Sequence[CategoryRecord]  # by rising id

    @cached_property
    def by_id(self) -> Mapping[int, CategoryRecord]:
        return {c.category_id: c for c in self.categories}

    def find(self, key: str, by: Literal["synset", "name"]) -> CategoryRecord | None:
        """The class of that synset or name.

        Raises:
            DataError: two classes have it.
        """
        found = (self._by_synset if by == "synset" else self._by_name).get(key, [])
        if len(found) > 1:
            ids = [c.category_id for c in found]
            raise DataError(f"{by} {shown(key)} is that of categories {some(ids, 5)}", where=_WHERE)
        return found[0] if found else None

    @cached_property
    def _by_synset(self) -> Mapping[str, list[CategoryRecord]]:
        return _grouped((c.synset, c) for c in self.categories)

    @cached_property
    def _by_name(self) -> Mapping[str, list[CategoryRecord]]:
        return _grouped((c.name, c) for c in self.categories)


def _grouped(
    pairs: Iterable[tuple[str | None, CategoryRecord]],
) -> Mapping[str, list[CategoryRecord]]:
    groups: dict[str, list[CategoryRecord]] = defaultdict(list)
    for key, category in pairs:
        if key is not None:
            groups[key].append(category)
    return groups


def join_labels(
    sources: Sequence[AnnotationSource], match: Literal["synset", "name"], min_images: int
) -> Labels:
    """The classes of the first source with their ids, then those that only later ones have, by
    rising name, where they are on at least ``min_images`` images.

    Raises:
        DataError: classes without the synset to match them by.
    """
    first, *others = sources
    labels = Labels(list(first.categories))
    for source in others:
        missing = [
            c for c in source.categories if labels.find(_key(c, match, source.name), match) is None
        ]
        if min_images > 1:
            counts = images_per_category(source)
            missing = [c for c in missing if counts.get(c.category_id, 0) >= min_images]
        start = 1 + max((c.category_id for c in labels.categories), default=0)
        added = [
            replace(c, category_id=start + i, frequency=None)
            for i, c in enumerate(sorted(missing, key=lambda c: (c.name, c.category_id)))
        ]
        labels = Labels([*labels.categories, *added])
    return labels


def images_per_category(source: AnnotationSource) -> dict[int, int]:
    """category_id -> number of images with an annotation of it; 16 bytes an annotation."""
    pairs = array("q")
    for raw in source.annotations():
        image_id, category_id = whole_number(raw.get("image_id")), raw.get("category_id")
        if image_id is not None and (category_id := whole_number(category_id)) is not None:
            pairs.extend((category_id, image_id))
    distinct = np.unique(np.array(pairs, np.int64).reshape(-1, 2), axis=0)
    ids, counts = np.unique(distinct[:, 0], return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _key(category: CategoryRecord, match: str, name: str) -> str:
    key = category.synset if match == "synset" else category.name
    if key is None:
        raise DataError(
            f"category {shown(category.name)} has no synset",
            where=name,
            fix="match by name, or relabel with a file that gives synsets",
        )
    return key


# ---------------------------------------------------------------- one source in those labels


class RelabeledSource:
    """A source whose categories are those of ``labels``.

    Args:
        relabel: how they are found; None: the source numbers its classes as ``labels`` does.

    Raises:
        DataError: no class of the source is found; without ``relabel``, one is not or is named
            differently; a file of synsets that does not fit.
    """

    def __init__(
        self,
        source: AnnotationSource,
        labels: Labels,
        relabel: Literal["synset", "name"] | SynsetFile | NameMap | None,
        folder: SourceFolder,
    ) -> None:
        self.source, self.federated = source, source.federated
        self.has_annotations = source.has_annotations
        self.labels_images = source.labels_images
        self.counterparts: dict[int, CategoryRecord] = {}
        if not self.has_annotations:
            self.categories: Sequence[CategoryRecord] = []
            return
        if relabel is None:
            self.counterparts = {c.category_id: _same(c, labels, source) for c in source.categories}
        else:
            by = "name" if relabel == "name" or isinstance(relabel, NameMap) else "synset"
            key_of = self._keys(relabel, folder, labels)
            for category_id, key in key_of.items():
                if (found := labels.find(key, by)) is not None:
                    self.counterparts[category_id] = found
        if not self.counterparts:
            raise DataError(
                f"none of its {len(source.categories)} classes is in label_space",
                where=source.name,
                fix="check relabel and label_space",
            )
        unique = {c.category_id: c for c in self.counterparts.values()}
        self.categories = [unique[category_id] for category_id in sorted(unique)]

    def _keys(
        self, relabel: str | SynsetFile | NameMap, folder: SourceFolder, labels: Labels
    ) -> dict[int, str]:
        categories = self.source.categories
        if isinstance(relabel, NameMap):
            _check_names(relabel.names, [c.name for c in categories], self.source.name)
            _check_names(relabel.names.values(), [c.name for c in labels.categories], _WHERE)
            names = relabel.names
            return {c.category_id: names[c.name] for c in categories if c.name in names}
        if isinstance(relabel, SynsetFile):
            if any(c.synset is None for c in categories):
                return read_synsets(folder, relabel.file, categories)
            relabel = "synset"  # the file gives its own
        return {c.category_id: _key(c, relabel, self.source.name) for c in categories}

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_images(self) -> int | None:
        return self.source.num_images

    def images(self) -> Iterator[ImageRecord]:
        """Lists of absent classes are in the ids of the labels, too."""
        for record in self.source.images():
            if record.absent is None and record.not_exhaustive is None:
                yield record
            else:
                yield replace(
                    record,
                    absent=self._in_labels(record.absent),
                    not_exhaustive=self._in_labels(record.not_exhaustive),
                )

    def _in_labels(self, ids: Sequence[int] | None) -> tuple[int, ...] | None:
        if ids is None:
            return None
        return tuple(self.counterparts[i].category_id for i in ids if i in self.counterparts)

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        passed_over = Counter() if passed_over is None else passed_over
        known = {c.category_id for c in self.source.categories}
        for raw in self.source.annotations(passed_over):
            category_id = whole_number(raw.get("category_id"))
            if (found := self.counterparts.get(category_id)) is not None:  # pyright: ignore[reportArgumentType]
                yield {**raw, "category_id": found.category_id}
            elif category_id in known:
                passed_over["of a class that is not in label_space"] += 1
            elif category_id is None:  # whoever checks ids says what is wrong
                yield raw
            else:
                yield {**raw, "category_id": NoCategory(category_id)}


def _check_names(names: Iterable[str], there: Sequence[str], where: str) -> None:
    for name in names:
        if name not in there:
            near = get_close_matches(name, there, n=3, cutoff=0.5)
            raise DataError(
                f"relabel.names: no class {shown(name)}",
                where=where,
                fix=f"did you mean {some(near, 3)}" if near else "check the name",
            )


def _same(category: CategoryRecord, labels: Labels, source: AnnotationSource) -> CategoryRecord:
    found = labels.by_id.get(category.category_id)
    if found is None or found.name != category.name:
        raise DataError(
            f"category {category.category_id} is {shown(category.name)}, in label_space "
            + (shown(found.name) if found else "there is none"),
            where=source.name,
            fix="set relabel: synset, name or a file of synsets",
        )
    return found


def read_synsets(
    folder: SourceFolder, name: str, categories: Sequence[CategoryRecord]
) -> dict[int, str]:
    """category_id -> synset, from a file shaped as LVIS's ``coco_to_synset.json``.

    Raises:
        DataError: missing, of another shape, lacks a class or numbers it differently.
    """
    where = f"{folder.uri}/{name}"
    fix = "use coco_to_synset.json of the LVIS API, or a file of its shape"
    try:
        with folder.open(name) as file:
            text = file.read(_MAX_SYNSET_FILE_BYTES)
        entries = json.loads(text)
    except FileNotFoundError:
        raise DataError("no such file", where=where, fix=fix) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), where=where) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})"[:200], where=where, fix=fix) from None
    synsets: dict[int, str] = {}
    for category in categories:
        entry = entries.get(category.name) if isinstance(entries, dict) else None
        synset = entry.get("synset") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(synset, str):
            raise DataError(f"no synset for class {shown(category.name)}", where=where, fix=fix)
        if entry.get("coco_cat_id", category.category_id) != category.category_id:
            raise DataError(
                f"{shown(category.name)} is category {shown(entry['coco_cat_id'])}, "
                f"in the annotation file {category.category_id}",
                where=where,
                fix=fix,
            )
        synsets[category.category_id] = synset
    return synsets
