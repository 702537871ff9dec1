"""Crop: what does each object look like?

One crop for each labeled instance with a mask, annotated or made, and for each proposal of an
unlabeled image. An image is decoded once; masks are handled inside the crop's window only, and
those of several images together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.data.crops.cut_spec import CutSpec
from gcdis_ray.errors import DataError
from gcdis_ray.masks.instance_masks import with_made_masks
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import document, optional, table
from gcdis_ray.store.schemas import CROPS

if TYPE_CHECKING:
    from gcdis_ray.data.images.image_files import ImageFiles
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.artifacts import Table
    from gcdis_ray.store.members import Inputs

ID = "crop"
VERSION = 2
TAKES = (
    "images",
    optional("image_index"),
    "instances",
    optional("source"),
    "proposals",
    optional("instance_masks"),
)
GIVES = (table("crops", CROPS), document("crop_spec"))
SEEDED = False

_PIXELS_AT_A_TIME = 1 << 25  # no windows of images that are cut together can hold more
_PROPOSAL_BYTES = 150  # most of it the mask
_IMAGE_COLUMNS = ("image_id", "split")
_INSTANCE_COLUMNS = (
    "instance_id", "image_id", "class_index", "bbox_xyxy", "mask_rle", "area_px", "iscrowd",
    "height_px", "width_px",
)  # fmt: skip
_PROPOSAL_COLUMNS = (
    "proposal_id", "image_id", "bbox_xyxy", "mask_rle", "area_px", "objectness",
)  # fmt: skip


class Config(StageConfig):
    """Which objects become crops, and how crops are stored."""

    context: float = Field(
        0.1, ge=0, le=4, description="margin on every side, as a share of the box's longer side"
    )
    min_side_px: float = Field(
        6.0, ge=0, le=10_000, description="objects whose box has a shorter side are left out"
    )
    min_area_px: float = Field(
        20.0, ge=0, le=1e8, description="objects with fewer pixels are left out"
    )
    max_side_px: int = Field(
        256, ge=8, le=4096, description="longer side of a stored crop; larger ones are scaled down"
    )
    jpeg_quality: int = Field(92, ge=1, le=100)
    max_proposals_per_image: int = Field(
        20,
        ge=1,
        le=10_000,
        description="the best so many by objectness become crops. Two or three times the objects "
        "of an image: fewer lose objects, and most of what more add shows none",
    )
    min_objectness: float = Field(0.0, ge=0, le=1, description="of proposals")

    @property
    def cut(self) -> CutSpec:
        return CutSpec(self.context, self.max_side_px, self.jpeg_quality)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Every proposal and some labeled objects; three bits a pixel of its JPEG and mask, but no
    more than a third of its part of the image."""
    images, proposals = inputs["images"], inputs["proposals"]
    rows = round(1.2 * proposals.rows)
    each = min(config.max_side_px**2 * 3 // 8, images.image_bytes // max(3 * images.rows, 1))
    return Size(rows, rows * each, images.image_bytes + 2 * _PROPOSAL_BYTES * proposals.rows)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Images that crops are cut from."""
    splits = inputs["images"].splits
    return Workload(rows=splits.get("labeled", 0) + splits.get("unlabeled", 0))


def sections(view: RunView) -> Sequence[Section]:
    """Objects, not sorted yet."""
    from gcdis_ray.report.class_sections import object_sections

    return object_sections(view)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``crops``, and how they are cut as JSON ``crop_spec``."""
    from gcdis_ray.data.images.image_files import ImageFiles, listed_images

    images, listed = inputs.table("images"), listed_images(inputs)
    instances, proposals = inputs.table("instances"), inputs.table("proposals")
    made = [inputs.table("instance_masks")] if inputs.has("instance_masks") else []
    # Crops are numbered before any is made: shards can then be made in any order.
    first = number_crops(
        listed,
        instances,
        proposals,
        made[0] if made else None,
        config,
        lambda done: work.progress(done, listed.num_shards, "image shards numbered"),
    )
    if not first[-1]:
        raise DataError(
            "no object is large enough to become a crop",
            where="stages.crop",
            fix="lower min_side_px, min_area_px or min_objectness",
        )
    cut = CropShard(config, ImageFiles.of(inputs))
    args = [{"first_crop": number} for number in first[:-1]]
    work.map_shards(cut, [images, instances, proposals, *made], gives=("crops",), args=args)
    work.write_json("crop_spec", asdict(config.cut))


def number_crops(
    listed: Table,
    instances: Table,
    proposals: Table,
    made: Table | None,
    config: Config,
    told: Callable[[int], None] = lambda done: None,
) -> list[int]:
    """Number of the first crop of every shard, and that of all crops.

    Args:
        listed, instances, proposals: shard by shard; of ``listed`` the columns of ``image_index``.
        made: table ``instance_masks``, if there is one.
        told: called with the number of shards that are done.
    """
    first = [0]
    for index in range(listed.num_shards):
        objects = select_objects(
            listed.shard(index, _IMAGE_COLUMNS),
            with_made_masks(
                instances.shard(index, _INSTANCE_COLUMNS), made.shard(index) if made else None
            ),
            proposals.shard(index, _PROPOSAL_COLUMNS),
            config,
        )
        first.append(first[-1] + len(objects))
        told(index + 1)
    return first


@dataclass(frozen=True)
class CropObject:
    """An object that becomes a crop."""

    image_id: int
    source_id: int
    class_index: int
    mask_rle: str


def select_objects(
    images: pa.Table, instances: pa.Table, proposals: pa.Table, config: Config
) -> list[CropObject]:
    """Objects of a shard that become crops: by image in the order of the shard, then by id.

    Labeled images give their instances that have a mask and are no crowd; unlabeled images their
    best proposals; validation images nothing.
    """
    chosen: dict[int, list[CropObject]] = {}
    split_of = dict(zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True))
    for row in instances.select(_INSTANCE_COLUMNS).to_pylist():
        labeled = split_of.get(row["image_id"]) == "labeled" and row["class_index"] >= 0
        has_mask = row["mask_rle"] is not None and not row["iscrowd"]
        if labeled and has_mask and _fits(row, config):
            chosen.setdefault(row["image_id"], []).append(_object(row, "instance_id"))
    best: dict[int, list[dict[str, Any]]] = {}
    for row in proposals.select(_PROPOSAL_COLUMNS).to_pylist():
        unlabeled = split_of.get(row["image_id"]) == "unlabeled"
        if unlabeled and row["objectness"] >= config.min_objectness and _fits(row, config):
            best.setdefault(row["image_id"], []).append(row)
    for image_id, rows in best.items():
        rows.sort(key=lambda row: (-row["objectness"], row["proposal_id"]))
        kept = rows[: config.max_proposals_per_image]
        chosen[image_id] = [_object(row, "proposal_id") for row in kept]
    return [
        found
        for image_id in split_of
        for found in sorted(chosen.get(image_id, ()), key=lambda found: found.source_id)
    ]


def _fits(row: Mapping[str, Any], config: Config) -> bool:
    x0, y0, x1, y1 = row["bbox_xyxy"]
    side, area = min(x1 - x0, y1 - y0), row["area_px"]
    return side >= config.min_side_px and area >= config.min_area_px and side > 0 and area > 0


def _object(row: Mapping[str, Any], id_column: str) -> CropObject:
    return CropObject(
        row["image_id"],
        row[id_column],
        row.get("class_index", -1),
        row["mask_rle"],
    )


@dataclass(frozen=True)
class CropShard:
    """Cuts the crops of a shard. Implements ShardTask."""

    config: Config
    files: ImageFiles

    def open(self, device: str) -> Callable[..., dict[str, pa.Table]]:
        import cv2  # noqa: F401  here, so that the runtime can limit its threads

        return self.cut

    def cut(
        self,
        index: int,
        images: pa.Table,
        instances: pa.Table,
        proposals: pa.Table,
        made: pa.Table | None = None,
        *,
        first_crop: int,
    ) -> dict[str, pa.Table]:
        from gcdis_ray.data.crops.crop_cutting import cut_crops

        told = with_made_masks(instances, made)
        chosen = select_objects(images, told, proposals, self.config)
        objects_of = {key: list(found) for key, found in groupby(chosen, lambda o: o.image_id)}
        ids = pa.array(list(objects_of), pa.int64())
        wanted = images.filter(pc.is_in(images["image_id"], value_set=ids))  # pyright: ignore[reportAttributeAccessIssue]
        sides = [wanted[name].to_pylist() for name in ("height_px", "width_px")]
        sizes = np.array(sides, np.int64).T
        rles = [[found.mask_rle for found in objects] for objects in objects_of.values()]
        files = self.files.read(wanted)
        pictures = (file.pixels() for file in files)  # one at a time, when it is needed
        crops = [
            crop
            for part in _parts([len(each) for each in rles], sizes)
            for crop in cut_crops(pictures, sizes[part], rles[part], self.config.cut)
        ]
        rows = [
            {
                "crop_index": index,
                "image_id": found.image_id,
                "source_id": found.source_id,
                "class_index": found.class_index,
                **crop,
            }
            for index, (found, crop) in enumerate(zip(chosen, crops, strict=True), first_crop)
        ]
        return {"crops": pa.Table.from_pylist(rows, CROPS)}


def _parts(num_objects: Sequence[int], sizes_hw: np.ndarray) -> Iterator[slice]:
    """Images that are cut together: as many as have, mask by mask, a bounded number of pixels, or
    one."""
    first, pixels = 0, 0
    for place, cost in enumerate((num_objects * sizes_hw.prod(axis=1)).tolist()):
        if place > first and pixels + cost > _PIXELS_AT_A_TIME:
            yield slice(first, place)
            first, pixels = place, 0
        pixels += cost
    yield slice(first, len(num_objects))
