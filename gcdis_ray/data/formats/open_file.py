"""Opens annotations of any format: the one door to the readers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Literal

from gcdis_ray.data.formats.class_folders import ClassFolders
from gcdis_ray.data.formats.coco import CocoFile
from gcdis_ray.data.formats.labels import Labels, RelabeledSource, join_labels
from gcdis_ray.data.formats.lvis import LvisFile
from gcdis_ray.data.formats.merged import MergedSource
from gcdis_ray.data.formats.objects365 import Objects365File
from gcdis_ray.data.formats.records import AnnotationSource
from gcdis_ray.data.formats.visual_genome import VisualGenomeFile
from gcdis_ray.data.formats.voc import VocFile
from gcdis_ray.data.sets.data_config import CLASS_FOLDERS, DataConfig, Format, ImageSet, LabelSpace
from gcdis_ray.data.sets.json_lists import read_ids
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.records.lvis_rules import are_categories
from gcdis_ray.store.source import FileState, SourceFolder


def open_sets(folder: SourceFolder, config: DataConfig) -> Mapping[str, AnnotationSource]:
    """The annotations of every set that has some; sets that say the same share a source.

    Raises:
        DataError: as :func:`open_annotations` and :func:`open_labels`.
    """
    labels = open_labels(folder, config.label_space) if config.label_space else None
    opened: dict[str, AnnotationSource] = {}
    sources: dict[str, AnnotationSource] = {}
    for split in config.splits:
        chosen = config.image_set(split)
        if chosen.is_listed:
            told_by = {"annotations", "format", "relabel", "except_coco_ids", "except_flagged"}
            if chosen.has_class_folders:
                told_by.add("images")
            said = chosen.model_dump_json(include=told_by)
            if said not in opened:
                opened[said] = open_annotations(folder, chosen, labels)
            sources[split] = opened[said]
    return sources


def open_labels(folder: SourceFolder, space: LabelSpace) -> Labels:
    """The classes of a run. Files after the first are read whole if ``min_images`` asks for it.

    Raises:
        DataError: as the readers; classes that cannot be matched.
    """
    states = tuple(folder.state(name) for name in space.files)
    return _labels(folder, tuple(space.files), space.match, space.min_images, states)


@lru_cache(maxsize=4)  # every stage that reads the data asks again
def _labels(
    folder: SourceFolder,
    names: tuple[str, ...],
    match: Literal["synset", "name"],
    min_images: int,
    states: tuple[FileState | None, ...],
) -> Labels:
    return join_labels([open_file(folder, name) for name in names], match, min_images)


def open_annotations(
    folder: SourceFolder, chosen: ImageSet, labels: Labels | None = None
) -> AnnotationSource:
    """The annotation file of a set, or its files merged; in ``labels`` if given. Or class folders.

    Raises:
        DataError: as the readers; a file of another format than said; see
            :class:`RelabeledSource` and :class:`MergedSource`.
    """
    if chosen.has_class_folders:
        return ClassFolders(folder, chosen.images)
    except_coco_ids: Collection[int] = ()
    if chosen.except_coco_ids is not None:
        where = "stages.ingest.except_coco_ids"
        except_coco_ids = set(read_ids(folder, chosen.except_coco_ids, where).tolist())
    sources: list[AnnotationSource] = []
    for position, name in enumerate(chosen.annotation_files):
        source = open_file(
            folder,
            name,
            chosen.format,
            except_flagged=chosen.except_flagged,
            except_coco_ids=except_coco_ids,
            as_in_coco=position > 0,  # to be joined with files that number images as COCO does
        )
        if labels is not None:
            source = RelabeledSource(source, labels, chosen.relabel, folder)
        sources.append(source)
    return sources[0] if len(sources) == 1 else MergedSource(sources)


def open_file(
    folder: SourceFolder,
    name: str,
    format: Format = "auto",
    *,
    except_flagged: Collection[str] = (),
    except_coco_ids: Collection[int] = (),
    as_in_coco: bool = False,
) -> AnnotationSource:
    """One annotation file.

    Args:
        except_flagged: see :class:`Objects365File`.
        except_coco_ids: see :class:`VisualGenomeFile`.
        as_in_coco: number Visual Genome's images as COCO does.

    Raises:
        DataError: as the reader; an option that the format has not.
    """
    if format == "auto":
        format = _format(folder, name)
    flagged_anyway = except_flagged and format != "objects365"
    if flagged_anyway or (except_coco_ids and format != "visual_genome"):
        raise DataError(
            f"a file of format {format} has no such marks",
            where=f"{folder.uri}/{name}",
            fix="except_flagged is for objects365, except_coco_ids for visual_genome",
        )
    if format == CLASS_FOLDERS:
        raise DataError(f"format {CLASS_FOLDERS} is of folders", where=f"{folder.uri}/{name}")
    if format == "voc":
        return VocFile(folder, name)
    if format == "visual_genome":
        return VisualGenomeFile(folder, name, "coco" if as_in_coco else "file", except_coco_ids)
    if format == "objects365":
        return Objects365File(folder, name, except_flagged)
    return LvisFile(folder, name) if format == "lvis" else CocoFile(folder, name)


def _format(folder: SourceFolder, name: str) -> Format:
    """What the file looks like: by its lists and the fields of the first record of each."""
    if name.endswith(".txt"):
        return "voc"
    file = JsonFile(folder, name)
    outline = file.outline
    if "" in outline.lists:
        if not outline.lists[""]:
            raise DataError(
                "an empty list: no image in it", where=file.path, fix="give an annotation file"
            )
        if "objects" not in outline.fields[""]:
            raise DataError(
                "a list of records without 'objects' is no annotation file",
                where=file.path,
                fix="Visual Genome: give objects.json, with image_data.json beside it",
            )
        return "visual_genome"
    if Objects365File.names_images_so(outline.first.get("images", {}).get("file_name")):
        return "objects365"
    fields = {section: outline.fields.get(section, ()) for section in ("images", "categories")}
    lvis = are_categories(fields["categories"]) or "neg_category_ids" in fields["images"]
    return "lvis" if lvis else "coco"
