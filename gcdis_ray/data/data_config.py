"""What a config says about the data: three sets of images and the known classes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from gcdis_ray.config import Closed, StageConfig
from gcdis_ray.data.coco import safe_file_name
from gcdis_ray.errors import DataError

SPLITS = ("labeled", "unlabeled", "validation")


def _relative(value: str) -> str:
    try:
        return safe_file_name(value, "path")
    except DataError:
        raise ValueError("must be a path below root: relative, without '..'") from None


class JsonList(Closed):
    """A list inside a JSON file."""

    file: str = Field(description="JSON file below root")
    key: str = Field(description="which list in it; a.b for b inside a")

    _file = field_validator("file")(_relative)


class ImageSet(Closed):
    """Some images: a folder and the annotation file that lists them, or the folder alone."""

    images: str = Field(description="folder below root that file names are relative to")
    annotations: str | None = Field(
        None, description="COCO file below root; none takes every image file in the folder"
    )
    image_ids: JsonList | None = Field(None, description="take only images with these COCO ids")
    part: tuple[float, float] | None = Field(
        None,
        description="[from, to) within [0, 1]: take the images whose file name hashes to that "
        "share, so that one file can serve two sets",
    )
    part_seed: int = Field(
        0, ge=0, le=2**31 - 1, description="another number divides the images another way"
    )
    ids: Literal["file", "name"] = Field(
        "file",
        description="image ids as in the annotation file, or made from file names: for sets whose "
        "files number their images alike",
    )

    _paths = field_validator("images", "annotations")(
        lambda value: value if value is None else _relative(value)
    )

    @field_validator("part")
    @classmethod
    def _ordered(cls, part: tuple[float, float] | None) -> tuple[float, float] | None:
        if part is not None and not 0 <= part[0] < part[1] <= 1:
            raise ValueError("must be [from, to] with 0 <= from < to <= 1")
        return part

    @field_validator("image_ids")
    @classmethod
    def _has_ids(cls, image_ids: JsonList | None, info: Any) -> JsonList | None:
        if image_ids is not None and info.data.get("annotations") is None:
            raise ValueError("needs annotations: a plain folder has no COCO ids")
        return image_ids


class DataConfig(StageConfig):
    """The data of a run: three sets of images and the names of the known classes."""

    root: str = Field(description="folder that holds everything below")
    labeled: ImageSet = Field(description="images whose known objects are annotated")
    unlabeled: ImageSet = Field(description="images with known and novel objects, nothing told")
    validation: ImageSet = Field(description="images kept for evaluation")
    known_classes: list[str | int] | JsonList = Field(
        description="names or category ids of the annotated classes, or where a JSON lists them"
    )
    max_quarantined_share: float = Field(
        0.05, ge=0, le=1, description="share of unusable images, or annotations, to go on with"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        # What lies in the folder counts (see `source` of the stages), not where it lies; and the
        # limit decides whether an artifact is made, not what is in it.
        return frozenset({"root", "max_quarantined_share"})

    @field_validator("labeled")
    @classmethod
    def _annotated(cls, labeled: ImageSet) -> ImageSet:
        if labeled.annotations is None:
            raise ValueError("labeled images need annotations: a COCO file below root")
        return labeled

    def image_set(self, split: str) -> ImageSet:
        return getattr(self, split)
