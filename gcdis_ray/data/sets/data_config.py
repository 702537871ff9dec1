"""What a config says about the data: up to three sets of images and the known classes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gcdis_ray.config import ENDPOINT, Closed, StageConfig
from gcdis_ray.data.formats.coco import safe_file_name
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder, open_source

SPLITS = ("labeled", "unlabeled", "validation")
CLASS_FOLDERS = "class_folders"


def _relative(value: str) -> str:
    try:
        return safe_file_name(value, "path")
    except DataError:
        raise ValueError("must be a path below root: relative, without '..'") from None


Format = Literal["auto", "coco", "lvis", "objects365", "visual_genome", "voc", "class_folders"]


class JsonList(Closed):
    """A list of names or ids inside a JSON file."""

    file: str = Field(description="JSON file below root")
    key: str = Field(
        description="which list in it; a.b for b inside a, or for field b of every object of list "
        "a: images.id takes the ids of an annotation file's images; empty: the file is the list"
    )

    _file = field_validator("file")(_relative)


class SynsetFile(Closed):
    """WordNet synsets of classes that carry none of their own."""

    file: str = Field(
        description="JSON file below root, shaped as LVIS's coco_to_synset.json: "
        "{class name: {coco_cat_id, meaning, synset}}"
    )

    _file = field_validator("file")(_relative)


class NameMap(Closed):
    """Which class of label_space each class of a file is, by name; those not in it are left out."""

    names: dict[str, str] = Field(min_length=1, description="{class of the file: of label_space}")


class LabelSpace(Closed):
    """The classes of a run and their ids, where the annotation files of its sets number theirs
    differently."""

    files: list[str] = Field(
        min_length=1,
        description="annotation files below root: the first one's categories keep their ids; "
        "classes that only the next ones have follow, by rising name",
    )
    match: Literal["synset", "name"] = Field(
        "synset", description="what tells that classes of two of these files are one"
    )
    min_images: int = Field(
        1, ge=1, description="classes after the first file's must be on that many images"
    )

    _files = field_validator("files")(lambda value: [_relative(name) for name in value])


class ImageSet(Closed):
    """Some images: a folder and the annotation files that list them, or the folder alone, whose
    folders may name the classes of what is in them."""

    images: str = Field(description="folder below root that file names are relative to")
    annotations: str | list[str] | None = Field(
        None,
        description="annotation file below root; several: those images that all of them list, "
        "and every class from the first file that has it; none: every image file in the folder",
    )
    format: Format = Field(
        "auto",
        description="of the annotation files; auto looks into them. class_folders: there are none, "
        "each folder in images is named by the class of all images in it",
    )
    relabel: Literal["synset", "name"] | SynsetFile | NameMap | None = Field(
        None,
        description="how classes are found in label_space: by the synset the file gives, by name, "
        "by the synset that another file gives, or by a table of names; none: by id, names must "
        "agree",
    )
    image_ids: JsonList | None = Field(None, description="take only images with these ids")
    except_image_ids: JsonList | None = Field(None, description="leave out images with these ids")
    except_coco_ids: JsonList | None = Field(
        None, description="Visual Genome: leave out images that are these ones of COCO"
    )
    except_flagged: list[Literal["isfake", "isreflected"]] = Field(
        [], description="Objects365: leave out annotations that say so of themselves"
    )
    part: tuple[float, float] | None = Field(
        None,
        description="[from, to) within [0, 1]: take the images whose file name hashes to that "
        "share, so that one file can serve two sets",
    )
    part_by: Literal["hash", "rank"] = Field(
        "hash",
        description="hash: an image stays in its part when others come and go; rank: parts of "
        "exact size, from all images in the order of their hashes",
    )
    part_seed: int = Field(
        0, ge=0, le=2**31 - 1, description="another number divides the images another way"
    )
    ids: Literal["file", "name"] = Field(
        "file",
        description="image ids as in the annotation file, or made from file names: for sets whose "
        "files number their images alike",
    )
    partial: bool = Field(
        False,
        description="take what is there: listed images that are missing are left out and counted, "
        "where otherwise they are an error",
    )
    shared: bool = Field(
        False,
        description="its images may be those of the labeled set, too, as new images with ids of "
        "their own; for the unlabeled set only",
    )

    _images = field_validator("images")(
        lambda value: value if value == "." else _relative(value)  # root itself
    )

    @field_validator("annotations")
    @classmethod
    def _files(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list):
            if len(set(value)) < len(value) or not value:
                raise ValueError("must be different files, at least one")
            return [_relative(name) for name in value]
        return value if value is None else _relative(value)

    @field_validator("part")
    @classmethod
    def _ordered(cls, part: tuple[float, float] | None) -> tuple[float, float] | None:
        if part is not None and not 0 <= part[0] < part[1] <= 1:
            raise ValueError("must be [from, to] with 0 <= from < to <= 1")
        return part

    @model_validator(mode="after")
    def _listed(self) -> ImageSet:
        if self.has_class_folders and self.annotations is not None:
            raise ValueError("format class_folders has no annotations: folders name the classes")
        if self.annotations is None:
            needs = ("image_ids", "except_image_ids", "except_coco_ids", "relabel", "partial")
            for name in (*needs, "except_flagged"):
                if getattr(self, name):
                    raise ValueError(f"{name} needs annotations: a plain folder lists nothing")
        return self

    @property
    def has_class_folders(self) -> bool:
        return self.format == CLASS_FOLDERS

    @property
    def is_listed(self) -> bool:
        """Whether something lists its images, and may tell of what is in them."""
        return self.annotations is not None or self.has_class_folders

    @property
    def annotation_files(self) -> tuple[str, ...]:
        if self.annotations is None:
            return ()
        return (self.annotations,) if isinstance(self.annotations, str) else tuple(self.annotations)


class DataConfig(StageConfig):
    """The data of a run: its sets of images and the names of the known classes."""

    root: str = Field(description="folder, or s3://bucket/prefix, that holds everything below")
    endpoint: str | None = Field(None, description=f"of a root in a bucket: {ENDPOINT}")
    labeled: ImageSet = Field(description="images whose known objects are annotated")
    unlabeled: ImageSet = Field(description="images with known and novel objects, nothing told")
    validation: ImageSet | None = Field(
        None, description="images kept for evaluation; a recipe that predicts needs them"
    )
    label_space: LabelSpace | None = Field(
        None, description="whose class ids count; none: all annotation files number alike"
    )
    known_classes: list[str | int] | Literal["all"] | JsonList = Field(
        description="names or category ids of the annotated classes, or where a JSON lists them; "
        "all: every class of the labeled set (that is in label_space)"
    )
    max_quarantined_share: float = Field(
        0.05, ge=0, le=1, description="share of unusable images, or annotations, to go on with"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        # What lies in the folder counts (see `source` of the stages), not where it lies; and the
        # limit decides whether an artifact is made, not what is in it.
        return frozenset({"root", "endpoint", "max_quarantined_share"})

    @field_validator("labeled")
    @classmethod
    def _annotated(cls, labeled: ImageSet) -> ImageSet:
        if not labeled.is_listed:
            raise ValueError(
                "labeled images need annotations, a file below root, or format: class_folders"
            )
        return labeled

    @model_validator(mode="after")
    def _shared_with_labeled(self) -> DataConfig:
        for split in ("labeled", "validation"):
            if split in self.splits and self.image_set(split).shared:
                raise ValueError(f"{split}.shared: only the unlabeled set can share images")
        return self

    @model_validator(mode="after")
    def _relabeled_into(self) -> DataConfig:
        for split in self.splits:
            if self.label_space is None and self.image_set(split).relabel is not None:
                raise ValueError(f"{split}.relabel needs label_space: whose ids to use")
        return self

    def open_root(self) -> SourceFolder:
        """Raises: DataError, StorageError: see :func:`gcdis_ray.store.source.open_source`."""
        return open_source(self.root, self.endpoint, "stages.ingest.root")

    def files(self) -> list[str]:
        """Every file below root that decides what the sets are, images aside, sorted."""
        found = set(self.label_space.files if self.label_space else ())
        named: list[Any] = [self.known_classes]
        for split in self.splits:
            chosen = self.image_set(split)
            found.update(chosen.annotation_files)
            named += [chosen.image_ids, chosen.except_image_ids, chosen.except_coco_ids]
            named.append(chosen.relabel)
        found.update(entry.file for entry in named if isinstance(entry, JsonList | SynsetFile))
        return sorted(found)

    @property
    def splits(self) -> tuple[str, ...]:
        """The sets that there are, in the order of :data:`SPLITS`."""
        return tuple(split for split in SPLITS if getattr(self, split) is not None)

    def image_set(self, split: str) -> ImageSet:
        return getattr(self, split)


class NewImages(DataConfig):
    """The data of a run that continues another one: images, and nothing is told of them. What
    their annotations say, if they have any, is for evaluation only."""

    labeled: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    validation: None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    known_classes: None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    @field_validator("labeled", mode="before")
    @classmethod
    def _annotated(cls, labeled: Any) -> None:
        if labeled is not None:
            raise ValueError("a run that continues another one takes unlabeled images only")
