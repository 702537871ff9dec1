"""``gcdis data check``: what a config takes from its folder, beside what has been published."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gcdis_ray.data.formats.open_file import open_labels
from gcdis_ray.data.sets.annotations import id_occurs_twice, too_many_rejected
from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.known_classes import without_object
from gcdis_ray.data.sets.present import Missing
from gcdis_ray.data.sets.published import FILES, HASHES, SETTINGS, Count
from gcdis_ray.data.sets.splits import DataPlan, SetPlan, plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import counted, printed, size

_CHUNK_BYTES = 1 << 20
_EXAMPLES = 3

Told = Callable[[str], None]  # is told, again and again, what is being done


@dataclass
class FileFacts:
    """An annotation file."""

    name: str
    num_bytes: int
    sha256: str
    counts: dict[str, int]  # entries of its lists


@dataclass
class SetFacts:
    """What one set takes."""

    images: int
    missing: str | None = None  # what is not there, in words
    left_out: int = 0  # listed images without a file, partial sets only
    no_images: str | None = None  # files of a folder that are not taken, in words
    linked: str | None = None  # files of the folder that lie elsewhere, in words
    annotated: bool = False
    annotations: int = 0  # usable ones, crowds included
    masks: int = 0
    boxes_only: int = 0
    whole_images: int = 0  # labels that name no place in their image
    crowds: int = 0
    known_classes: int = 0  # with an object
    novel_classes: int = 0
    same_id: int = 0  # usable but for an id that another one has: turned down, too
    not_usable: int = 0
    examples: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)


@dataclass
class DataReport:
    """All that was counted; ``problems`` are contradictions, ``notes`` differences from counts
    that are not firm."""

    root: str
    files: list[FileFacts]
    sets: dict[str, SetFacts]
    num_known: int
    num_classes: int
    beside: dict[str, str] = field(default_factory=dict)  # count -> the published one
    problems: list[str] = field(default_factory=list)  # with what to do next, in a second line
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"root  {self.root}"
        for file in self.files:
            yield f"file  {file.name}  {size(file.num_bytes)}  sha256 {file.sha256}"
            for what, seen in file.counts.items():
                yield self._line(what, f"{file.name}: {what}", f"{seen:,}")
        for split, found in self.sets.items():
            yield f"set   {split}"
            yield self._line("images", f"{split}.images", f"{found.images:,}")
            if found.missing or found.left_out:
                yield self._line("missing", "", found.missing or f"{found.left_out:,}, left out")
            if found.linked:
                yield self._line("linked", "", found.linked)
            if found.no_images:
                yield self._line("left out", "", found.no_images)
            if not found.annotated:
                yield self._line("annotations", "", "none")
                continue
            parts = (
                counted(found.masks, "mask"),
                counted(found.boxes_only, "box only", "boxes only"),
                counted(found.crowds, "crowd"),
            )
            if found.whole_images:
                parts = (counted(found.whole_images, "whole image"),)
            text = f"{found.annotations:,}  ({', '.join(parts)})"
            yield self._line("annotations", f"{split}.annotations", text)
            classes = f"{found.known_classes:,} known, {found.novel_classes:,} novel"
            yield self._line("classes", "", f"{classes} have objects")
            for reason, count in sorted(found.passed_over.items()):
                yield self._line("passed over", "", f"{count:,} {reason}")
            if found.same_id:
                yield self._line("same id", "", f"{found.same_id:,} have the id of another one")
            if found.not_usable:
                yield self._line("not usable", "", f"{found.not_usable:,}")
            if found.examples:
                yield self._line("", "", f"such as {'; '.join(found.examples)}")
        yield "all"
        yield self._line("known classes", "known classes", f"{self.num_known:,}")
        yield self._line("classes", "classes", f"{self.num_classes:,}")
        yield from (f"note  {note}" for note in self.notes)

    def _line(self, what: str, key: str, text: str) -> str:
        beside = f"   published {self.beside[key]}" if key in self.beside else ""
        return f"      {what:<14} {text}{beside}"


def check_data(config: DataConfig, name: str, told: Told = lambda text: None) -> DataReport:
    """Count everything that the config takes. Reads annotation files, and of images no more
    than tells what they are.

    Args:
        name: of the config: shipped ones have published counts.

    Raises:
        DataError: what keeps the sets from being told apart at all, as in a run.
    """
    folder = config.open_root()
    files = [_file(folder, path, told) for path in _file_names(config)]
    told("reading the lists of images")
    plan = plan_data(config)
    known = {c.category_id for c in plan.known}
    sets: dict[str, SetFacts] = {}
    classes: dict[str, set[int]] = {}
    missing: dict[str, Missing] = {}
    for split in config.splits:
        if plan.sets[split].source is not None:
            told(f"{split}: looking for {len(plan.images[split]):,} images")
            missing[split] = plan.sets[split].missing(plan.folder)
        sets[split], classes[split] = _set(plan, split, known, missing.get(split), told)
    ids = set(known)
    for split in config.splits:
        if (source := plan.sets[split].source) is not None and source.has_annotations:
            ids |= {c.category_id for c in source.categories}
    if config.label_space is not None:
        ids |= {c.category_id for c in open_labels(folder, config.label_space).categories}
    report = DataReport(folder.uri, files, sets, len(known), len(ids))
    _compare_files(report, config, name)
    _compare_setting(report, config, name)
    _judge_sets(report, config, missing)
    absent = [c.name for c in plan.known if c.category_id not in classes["labeled"]]
    if absent:
        report.problems.append(str(without_object(absent, len(known))))
    return report


def _file_names(config: DataConfig) -> list[str]:
    names = config.files()
    beside = [
        str(PurePosixPath(name).with_name("image_data.json"))  # Visual Genome: sizes of images
        for name in names
        if PurePosixPath(name).name == "objects.json"
    ]
    return sorted({*names, *beside})


def _file(folder: SourceFolder, name: str, told: Told) -> FileFacts:
    found, done = hashlib.sha256(), 0
    state = folder.state(name)
    if state is None:
        what = "is a folder, not a file" if folder.has_folder(name) else "no such file"
        raise DataError(what, where=f"{folder.uri}/{name}", fix="check the path")
    with folder.open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            done += len(chunk)
            told(f"{name}: {size(done)} of {size(state.num_bytes)}")
    counts: dict[str, int] = {}
    if name.endswith(".json"):
        told(f"{name}: structure")
        counts = dict(JsonFile(folder, name).outline.lists)
        counts = {what or "images": count for what, count in counts.items() if what != "licenses"}
    return FileFacts(name, state.num_bytes, found.hexdigest(), counts)


def _set(
    plan: DataPlan, split: str, known: set[int], missing: Missing | None, told: Told
) -> tuple[SetFacts, set[int]]:
    """A set, and the ids of the classes that have an object in it."""
    chosen = plan.sets[split]
    found = SetFacts(len(chosen.images), left_out=chosen.num_missing)
    classes: set[int] = set()
    found.linked = _linked(plan.folder, chosen.config.images)
    if chosen.left_out.total:
        found.no_images = chosen.left_out.describe()
    if missing is not None and missing.count:
        found.missing = missing.describe()
    if chosen.source is not None and chosen.source.has_annotations:
        found.annotated = True
        classes = _count(chosen, found, lambda count: told(f"{split}: {count:,} annotations"))
        found.known_classes = len(classes & known)
        found.novel_classes = len(classes - known)
    return found, classes


def _linked(folder: SourceFolder, images: str) -> str | None:
    """What of a folder lies out of the data folder, behind links: whoever moves that must know."""
    count, example = 0, ""
    for name in folder.outside(images):
        count, example = count + 1, min(example or name, name)
    where = "behind links that lead out of root"
    return f"{counted(count, 'file')} {where}, such as {printed(example)}" if count else None


def _count(chosen: SetPlan, found: SetFacts, told: Callable[[int], None]) -> set[int]:
    """What the annotations of a set hold; ids of the classes that have an object."""
    selection = chosen.selection(None)
    classes: set[int] = set()
    ids = array("q")
    for rows in selection.checked():
        for row, instance_id, category_id, _, mask_rle, _, iscrowd, reason in rows:
            if reason is not None:
                found.not_usable += 1
                if len(found.examples) < _EXAMPLES:
                    uri = f"{printed(chosen.images[row].uri)}: " if row >= 0 else ""
                    found.examples.append(uri + reason)
                continue
            ids.append(instance_id)
            found.annotations += 1
            found.masks += mask_rle is not None
            found.whole_images += selection.source.labels_images
            found.boxes_only += mask_rle is None and not selection.source.labels_images
            found.crowds += iscrowd
            if not iscrowd:
                classes.add(category_id)
        told(found.annotations)
    found.passed_over = dict(selection.passed_over)
    id_N = np.sort(np.array(ids, np.int64))
    repeats = id_N[1:][id_N[1:] == id_N[:-1]]
    found.same_id = len(repeats)
    more = np.unique(repeats)[: _EXAMPLES - len(found.examples)].tolist()
    found.examples += map(id_occurs_twice, more)
    return classes


# ---------------------------------------------------------------- what contradicts


def _compare_files(report: DataReport, config: DataConfig, name: str) -> None:
    """Only a config that is shipped says that a file is the published one: others may give a file
    of their own its name."""
    partial = {
        file
        for split in config.splits
        if config.image_set(split).partial
        for file in config.image_set(split).annotation_files
    }
    for file in report.files:
        sha256, source = HASHES.get(file.name.rpartition("/")[2], (file.sha256, ""))
        if file.sha256 != sha256:
            report.notes.append(f"{file.name}: another file than published ({source}: {sha256})")
        published = FILES.get(file.name.rpartition("/")[2], {})
        for what, count in published.items():
            if what in file.counts:
                key = f"{file.name}: {what}"
                may_differ = file.name in partial or name not in SETTINGS
                _compare(report, key, count, file.counts[what], may_differ)


def _compare_setting(report: DataReport, config: DataConfig, name: str) -> None:
    seen = {"known classes": report.num_known, "classes": report.num_classes}
    partial = {split: config.image_set(split).partial for split in config.splits}
    for split, found in report.sets.items():
        seen[f"{split}.images"] = found.images
    for key, count in SETTINGS.get(name, {}).items():
        split = key.partition(".")[0]
        _compare(report, key, count, seen[key], partial.get(split, any(partial.values())))


def _compare(report: DataReport, key: str, count: Count, seen: int, partial: bool) -> None:
    report.beside[key] = str(count)
    if count.fits(seen):
        return
    text = f"{key}: {seen:,}, published {count}"
    (report.problems if count.firm and not partial else report.notes).append(text)


def _judge_sets(report: DataReport, config: DataConfig, missing: Mapping[str, Missing]) -> None:
    for split, found in report.sets.items():
        where = f"stages.ingest.{split}"
        if found.missing and not config.image_set(split).partial:
            report.problems.append(str(missing[split].error(f"{where}.images")))
        rejected, total = found.not_usable + found.same_id, found.annotations + found.not_usable
        if rejected > (share := config.max_quarantined_share) * total:
            error = too_many_rejected(
                rejected, total, found.examples, share, f"{where}.annotations"
            )
            report.problems.append(str(error))
