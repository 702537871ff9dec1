"""A run's objects, written for other programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcdis_ray.errors import ConfigError
from gcdis_ray.exporting.choices import CROPS, FOLDERS, MIN_IOU
from gcdis_ray.exporting.classes import check_distinct
from gcdis_ray.exporting.coco import Coco, write_cvat_labels
from gcdis_ray.exporting.crop_folders import write_crops
from gcdis_ray.exporting.file_names import ImageNames
from gcdis_ray.exporting.image_files import Images, image_files
from gcdis_ray.exporting.label_studio import LabelStudio, local_prefix
from gcdis_ray.exporting.objects import ExportedImage, ExportedObject, ObjectSet
from gcdis_ray.exporting.out_folder import SUMMARY, out_folder
from gcdis_ray.exporting.run_objects import Limits, predictions, pseudo_labels
from gcdis_ray.exporting.shapes import Shapes, is_empty
from gcdis_ray.exporting.writer import Target, Writer
from gcdis_ray.exporting.yolo import Yolo
from gcdis_ray.run.opened import OpenedRun

Show = Callable[[int, int, str], None]  # done, of how many, of what


@dataclass(frozen=True)
class Format:
    """A format of other programs.

    Args:
        images: folder of image files in the export.
        open: its writer.
        rle: whether masks are run lengths unless polygons are asked for; None: polygons only.
        crowds: whether it has areas to ignore.
        by_name: whether its readers know a class by its name alone.
        needs_images: whether its readers find labels by the image files.
    """

    images: str
    open: Callable[[Target], Writer]
    rle: bool | None
    crowds: bool = False
    by_name: bool = True
    needs_images: bool = False


COCO_FILE = "annotations/instances_default.json"  # as readers of COCO folders look for it


def _cvat(target: Target) -> Writer:
    write_cvat_labels(target)
    return Coco.open(target, COCO_FILE)


FORMATS: Mapping[str, Format] = {
    "coco": Format("images", lambda target: Coco.open(target, COCO_FILE), False, True, False),
    "label-studio": Format("images", LabelStudio.open, None),
    "fiftyone": Format("data", lambda target: Coco.open(target, "labels.json"), True, True),
    "cvat": Format("images/default", _cvat, False, True),
    "yolo": Format("images", Yolo.open, None, by_name=False, needs_images=True),
}
SOURCES: Mapping[str, Callable[[OpenedRun, Limits], ObjectSet]] = {
    "pseudo-labels": pseudo_labels,
    "predictions": predictions,
}


@dataclass(frozen=True)
class Wanted:
    """What to export.

    Args:
        format: one of :data:`FORMATS`, or ``folders``.
        of: one of :data:`SOURCES`, or ``crops``, which go with ``folders``.
        out: folder to make.
        rle: run lengths (True) or polygons (False); None: as is usual for the format.
        min_iou: in [0.5, 1], how much of a mask its polygons must keep.
        image_prefix: what precedes names of images in Label Studio's tasks; None: as it serves a
            local folder.
        force: replace an earlier export.
    """

    format: str
    of: str
    out: str
    limits: Limits
    rle: bool | None = None
    min_iou: float = MIN_IOU
    images: Images = "copy"
    image_prefix: str | None = None
    force: bool = False


def export(run: OpenedRun, wanted: Wanted, show: Show = lambda *told: None) -> dict[str, Any]:
    """Write a folder of files, or nothing.

    Returns:
        The summary, which is in ``export.json`` as well.

    Raises:
        ConfigError: no such format; what does not go together; the run has not got that far; the
            folder is not empty.
        DataError: names of classes that the format cannot hold; images that cannot be linked to.
        StorageError: the folder cannot be written.
    """
    _check(wanted)
    told: dict[str, Any] = {"format": wanted.format, "of": wanted.of, "run": run.name}
    if wanted.of == CROPS:
        with out_folder(wanted.out, force=wanted.force) as folder:
            told |= write_crops(run, wanted.limits, folder, show)
            _write_summary(folder, told)
        return told
    chosen = FORMATS[wanted.format]
    found = SOURCES[wanted.of](run, replace(wanted.limits, embeddings=_embeds(wanted)))
    if chosen.by_name:
        check_distinct(found.classes, run.source)
    with out_folder(wanted.out, force=wanted.force) as folder:
        told |= _write(run, wanted, chosen, found, folder, show)
        _write_summary(folder, told)
    return told


def _embeds(wanted: Wanted) -> bool:
    return wanted.format == "fiftyone" and wanted.of == "pseudo-labels"


def _write(
    run: OpenedRun, wanted: Wanted, chosen: Format, found: ObjectSet, folder: Path, show: Show
) -> dict[str, Any]:
    rle = bool(chosen.rle if wanted.rle is None else wanted.rle)
    out = Path(wanted.out).expanduser().absolute()
    prefix = local_prefix(out) if wanted.image_prefix is None else wanted.image_prefix
    target = Target(folder, run.name, found.classes, Shapes(wanted.min_iou), rle, prefix)
    (folder / chosen.images).mkdir(parents=True)
    files = image_files(run, wanted.images, folder / chosen.images)
    names = ImageNames.of(found.listed) if files else None
    writer = chosen.open(target)
    left_out, num_images, num_objects = Counter[str](), 0, Counter[int]()
    keeps_ids = found.least_id() > 0
    for shard in range(found.num_shards):
        for image in found.images(shard, files=files is not None):
            num_images += 1
            name = image.uri
            if files and names:
                assert image.file is not None
                name = names.name(image.image_id, image.uri, image.file)
                files.put(name, image.uri, image.file)
            image = _usable(image, chosen, left_out)
            num_objects.update(each.class_index for each in image.objects)
            writer.add(image.image_id if keeps_ids else num_images, name, image)
        show(shard + 1, found.num_shards, "shards")
    writer.close()
    classes = [each.plain() | {"objects": num_objects[each.class_index]} for each in found.classes]
    return {
        "classes": classes,
        "images": num_images,
        "objects": num_objects.total(),
        "left_out": dict(left_out),
        "drawn_as_boxes": target.shapes.num_boxes,
        "polygons": target.shapes.told(),
    }


def _usable(image: ExportedImage, chosen: Format, left_out: Counter[str]) -> ExportedImage:
    kept: list[ExportedObject] = []
    for found in image.objects:
        if found.crowd and not chosen.crowds:
            left_out["areas to ignore"] += 1
        elif is_empty(image, found):
            left_out["masks without a pixel"] += 1
        else:
            kept.append(found)
    return replace(image, objects=kept)


def _write_summary(folder: Path, told: Mapping[str, Any]) -> None:
    (folder / SUMMARY).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _check(wanted: Wanted) -> None:
    names: Sequence[str] = (*FORMATS, FOLDERS)
    if wanted.format not in names:
        raise ConfigError(
            f"no format {wanted.format!r}", where="--format", fix=f"use one of {', '.join(names)}"
        )
    if wanted.of not in (*SOURCES, CROPS):
        raise ConfigError(
            f"nothing is called {wanted.of!r}",
            where="--of",
            fix=f"use one of {', '.join((*SOURCES, CROPS))}",
        )
    if (wanted.of == CROPS) != (wanted.format == FOLDERS):
        raise ConfigError(
            f"{wanted.of} are not exported as {wanted.format}",
            where="--of",
            fix=f"--of {CROPS} goes with --format {FOLDERS}; others are {' and '.join(SOURCES)}",
        )
    if wanted.format == FOLDERS:
        return
    chosen = FORMATS[wanted.format]
    if wanted.rle and chosen.rle is None:
        raise ConfigError(
            f"{wanted.format} takes polygons", where="--rle", fix="leave it out, or use coco"
        )
    if wanted.images == "none" and chosen.needs_images:
        raise ConfigError(
            f"{wanted.format} finds labels by the image files beside them",
            where="--images",
            fix="use copy or link",
        )
