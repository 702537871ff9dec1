"""The layouts that are known, and which of them a folder has: which images are labeled, which not.

Nothing here looks at an annotation: names of files and folders, and of lists in files, decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from gcdis_ray.data.formats.open_file import open_file
from gcdis_ray.data.images.folder_images import LeftOut, image_names
from gcdis_ray.data.sets.data_config import CLASS_FOLDERS
from gcdis_ray.errors import DataError
from gcdis_ray.starting.contents import Contents, role_of, words
from gcdis_ray.words import cut, some

_SHARES: Mapping[str, float] = {"labeled": 0.4, "unlabeled": 0.4, "validation": 0.2}
_APART = ("unlabeled", "validation")
_LOOKED_AT = 5  # images of a file that are looked for
_HALF = "by hash of the file name: adding images moves none"


@dataclass(frozen=True)
class Layout:
    """How the data of a folder can be read.

    Args:
        what: for people.
        sets: what a config says of each set.
        known: what it says of known classes.
        notes: why, by set or ``known``.
    """

    what: str
    sets: Mapping[str, Mapping[str, Any]]
    known: Any
    notes: Mapping[str, str] = field(default_factory=dict)

    def divided_by(self, seed: int) -> Layout:
        """The same with other images in each part."""
        sets = {
            split: {**chosen, "part_seed": seed} if "part" in chosen else chosen
            for split, chosen in self.sets.items()
        }
        return replace(self, sets=sets)


def find_layout(contents: Contents, predicts: bool) -> Layout:
    """The layout of a folder.

    Args:
        predicts: whether validation images are needed.

    Raises:
        DataError: it has none of those that are known; images that a file lists are not there.
    """
    if not contents.images:
        left_out = LeftOut()
        for _ in image_names(contents.folder, ".", left_out):
            pass
        but = f", but {left_out.describe()}" if left_out.total else ""
        raise DataError(
            f"no image in it (JPEG, PNG or WebP){but}",
            where=contents.folder.uri,
            fix="give the folder that holds images and what tells of them",
        )
    layouts: tuple[Callable[[Contents, bool], Layout | None], ...] = (
        _by_lists,
        _by_files,
        _by_folders,
    )
    for look in layouts:
        if (found := look(contents, predicts)) is not None:
            return found
    damaged = "".join(f"; {error}" for error in contents.damaged[:3])
    raise DataError(
        "found images, but nothing that tells which are labeled and how: no annotation file "
        "(COCO, LVIS, Objects365, Visual Genome), no list of PASCAL VOC, no folders "
        f"labeled/<class> and unlabeled{damaged}",
        where=contents.folder.uri,
        fix="add instances.json, or lay images out as labeled/<class>/<file> and unlabeled/<file>",
    )


def known_list(contents: Contents) -> dict[str, str] | None:
    """Where a file lists known classes, if one does."""
    for name in contents.of_kind("lists"):
        for key in contents.lists(name):
            if "known" in words(key):
                return {"file": name, "key": key}
    return None


def _known(contents: Contents) -> tuple[Any, str]:
    if (listed := known_list(contents)) is not None:
        return listed, f"{listed['key']!r} in {listed['file']}"
    return "all", "every class that labeled images show; name fewer to have the others discovered"


# ---------------------------------------------------------------- one annotation file, and lists


def _by_lists(contents: Contents, predicts: bool) -> Layout | None:
    """An annotation file, and lists of image ids that divide its images."""
    files = [name for name in contents.of_kind("annotations") if role_of(name) is None]
    for lists in contents.of_kind("lists") if files else ():
        keys: dict[str, str] = {}
        for key in contents.lists(lists):
            role = role_of(key)
            if role is not None and "known" not in words(key):
                keys.setdefault(role, key)
        if not keys.keys() & {"labeled", "train"}:
            continue
        told = _best(files)
        of_file, labeled = _file_set(contents, told), "labeled" if "labeled" in keys else "train"
        listed = {
            role: {**of_file, "image_ids": {"file": lists, "key": key}}
            for role, key in keys.items()
        }
        apart = {split: listed[split] for split in _APART if split in keys}
        sets, divided = _divided(listed[labeled], apart, predicts)
        notes = {"labeled": f"{keys[labeled]!r} in {lists}"}
        notes |= {split: f"{keys[split]!r} in {lists}" for split in apart}
        notes |= {split: f"{share} of {keys[labeled]!r}, {_HALF}" for split, share in divided}
        known, notes["known"] = _known(contents)
        return Layout(f"{told}, divided by {lists}", sets, known, notes)
    return None


def _file_set(contents: Contents, name: str) -> dict[str, Any]:
    """A set of all images of an annotation file.

    Raises:
        DataError: as the readers; its images are not there.
    """
    if name in contents.voc_lists:
        return {"images": f"{name.rpartition('ImageSets/')[0]}JPEGImages", "annotations": name}
    source = open_file(contents.folder, name)
    names = [record.file_name for record in islice(source.images(), _LOOKED_AT)]
    at = contents.folder_of(names, name)
    if at is None:
        raise DataError(
            f"lists images such as {some(names[:2], 2, cut)}, and no such file is in the folder"
            if names
            else "lists no image",
            where=f"{contents.folder.uri}/{name}",
            fix="put the images beside it, named as it names them",
        )
    return {"images": at, "annotations": name}


def _best(files: Sequence[str]) -> str:
    """Of several files on the same images: objects rather than keypoints or captions."""
    return min(
        files,
        key=lambda name: (
            "instances" not in words(name),
            "lvis" not in words(name),
            name.count("/"),
            len(name),
            name,
        ),
    )


def _divided(
    labeled: Mapping[str, Any], apart: Mapping[str, Mapping[str, Any]], predicts: bool
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Sets of which those that are missing are parts of the labeled one; and, of each part, how
    large it is."""
    wanted = _APART if predicts else _APART[:1]
    parts = ["labeled", *(split for split in wanted if split not in apart)]
    sets = {"labeled": dict(labeled)}
    sets |= {split: dict(apart[split]) for split in wanted if split in apart}
    if len(parts) == 1:
        return sets, []
    total, start, divided = sum(_SHARES[split] for split in parts), 0.0, []
    for split in parts:
        end = 1.0 if split == parts[-1] else round(start + _SHARES[split] / total, 2)
        sets[split] = {**labeled, "part": [start, end]}
        divided.append((split, f"{end - start:.0%}"))
        start = end
    return {split: sets[split] for split in ("labeled", *wanted)}, divided


# ---------------------------------------------------------------- annotation files by name


def _by_files(contents: Contents, predicts: bool) -> Layout | None:
    """Annotation files, named by what they are of."""
    files = [*contents.of_kind("annotations"), *contents.voc_lists]
    if not files:
        return None
    roles = dict.fromkeys(map(role_of, files))
    by_role = {role: _best([name for name in files if role_of(name) == role]) for role in roles}
    told = by_role.get("labeled") or by_role.get("train") or by_role.get(None)
    if told is None:
        return None
    used = {told, *(by_role[split] for split in _APART if split in by_role)}
    apart = {split: _file_set(contents, by_role[split]) for split in _APART if split in by_role}
    notes = {"labeled": f"of {told}", **{split: f"of {by_role[split]}" for split in apart}}
    below = [name for at in (".", "images") for name in contents.folders_of("unlabeled", at)]
    if "unlabeled" not in apart and below:
        apart["unlabeled"] = {"images": below[0]}
        notes["unlabeled"] = f"all in {below[0]}: nothing is told, so nothing can be scored"
    sets, divided = _divided(_file_set(contents, told), apart, predicts)
    notes |= {split: f"{share} of {told}, {_HALF}" for split, share in divided}
    known, notes["known"] = _known(contents)
    left = sorted(set(files) - used)
    what = told + (f"; left out: {some(left, 3, cut)}" if left else "")
    return Layout(what, sets, known, notes)


# ---------------------------------------------------------------- folders named by classes


def _by_folders(contents: Contents, predicts: bool) -> Layout | None:
    """``labeled/<class>`` beside ``unlabeled``, or class folders beside it."""
    for below in (".", "images", "data"):
        unlabeled = contents.folders_of("unlabeled", below)
        if not unlabeled:
            continue
        labeled = [*contents.folders_of("labeled", below), *contents.folders_of("train", below)]
        of_role = [name for name in labeled if contents.class_folders(name)]
        if of_role:
            told = of_role[0]
            classes, known, why = contents.class_folders(told), "all", f"the folders in {told}"
        else:
            told = below
            classes = {
                name: count
                for name, count in contents.class_folders(below).items()
                if role_of(name) is None and not name.startswith(".")
            }
            known, why = sorted(classes), "the other folders beside it"
        if not classes:
            continue
        if (listed := known_list(contents)) is not None:
            known, why = listed, f"{listed['key']!r} in {listed['file']}"
        labels: dict[str, Any] = {"images": told, "format": CLASS_FOLDERS}
        apart = {"unlabeled": _unlabeled_folder(contents, unlabeled[0], classes)}
        notes = {"labeled": "folders are named by classes", "known": why}
        notes["unlabeled"] = (
            "its folders are the truth, for evaluate alone"
            if "format" in apart["unlabeled"]
            else "nothing is told, so nothing can be scored"
        )
        for name in contents.folders_of("validation", below):
            apart["validation"] = _unlabeled_folder(contents, name, classes)
            notes["validation"] = f"images in {name}"
            break
        sets, divided = _divided(labels, apart, predicts)
        notes |= {split: f"{share} of {told}, {_HALF}" for split, share in divided}
        return Layout(f"class folders in {told}", sets, known, notes)
    return None


def _unlabeled_folder(contents: Contents, name: str, classes: Mapping[str, int]) -> dict[str, Any]:
    """Folders in it are taken for classes if one of them is named as a labeled class is."""
    if contents.class_folders(name).keys() & classes.keys():
        return {"images": name, "format": CLASS_FOLDERS}
    return {"images": name}
