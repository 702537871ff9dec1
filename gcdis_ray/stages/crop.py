"""Crop: what does each object look like?

One crop for each labeled instance with a mask, annotated or made, and for each proposal of an
unlabeled image. An image is decoded once; masks are handled inside the crop's window only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gcdis_ray.artifacts import SCHEMAS, Size
from gcdis_ray.config import StageConfig
from gcdis_ray.data.instance_masks import with_made_masks
from gcdis_ray.errors import DataError

if TYPE_CHECKING:
    from gcdis_ray.artifacts import Artifact, Table
    from gcdis_ray.data.image_files import ImageFiles
    from gcdis_ray.runtime.base import Work

VERSION = 2
TAKES: tuple[str, ...] = ("ingest", "propose")
SEEDED = False

_PROPOSAL_BYTES = 150  # most of it the mask
_IMAGE_COLUMNS = ("image_id", "split")
_INSTANCE_COLUMNS = (
    "instance_id", "image_id", "class_index", "bbox_xyxy", "mask_rle", "area_px", "iscrowd",
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
        96, ge=8, le=4096, description="longer side of a stored crop; larger ones are scaled down"
    )
    jpeg_quality: int = Field(92, ge=1, le=100)
    max_proposals_per_image: int = Field(
        20, ge=1, le=10_000, description="the best by objectness become crops"
    )
    min_objectness: float = Field(0.0, ge=0, le=1, description="of proposals")


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Every proposal and some labeled objects; three bits a pixel of its JPEG and mask, but no
    more than a third of its part of the image."""
    ingest = inputs["ingest"]
    rows = round(1.2 * inputs["propose"].rows)
    each = min(config.max_side_px**2 * 3 // 8, ingest.image_bytes // max(3 * ingest.rows, 1))
    return Size(
        rows, rows * each, ingest.image_bytes + 2 * _PROPOSAL_BYTES * inputs["propose"].rows
    )


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    from gcdis_ray.data.image_files import ImageFiles

    images, listed = inputs["ingest"].table("images"), inputs["ingest"].table("image_index")
    instances = inputs["ingest"].table("instances")
    proposals = inputs["propose"].table("proposals")
    has_made = inputs["propose"].has("instance_masks")
    made = [inputs["propose"].table("instance_masks")] if has_made else []
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
    cut = CropShard(config, ImageFiles.of(inputs["ingest"]))
    args = [{"first_crop": number} for number in first[:-1]]
    work.map_shards(cut, [images, instances, proposals, *made], gives=("crops",), args=args)


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


def crop_window(
    bbox_xyxy: Sequence[float], context: float, height_px: int, width_px: int
) -> tuple[int, int, int, int]:
    """Whole-pixel window around a box with a margin, inside the image.

    Args:
        context: margin on every side as a share of the box's longer side.
    """
    x0, y0, x1, y1 = bbox_xyxy
    margin = context * max(x1 - x0, y1 - y0)
    left, top = int(np.floor(x0 - margin)), int(np.floor(y0 - margin))
    right, bottom = int(np.ceil(x1 + margin)), int(np.ceil(y1 + margin))
    return max(left, 0), max(top, 0), min(right, width_px), min(bottom, height_px)


@dataclass(frozen=True)
class CropShard:
    """Cuts the crops of a shard. Implements ShardTask."""

    config: Config
    files: ImageFiles

    def open(self) -> Callable[..., dict[str, pa.Table]]:
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
        from gcdis_ray.data.images import decode_rgb

        told = with_made_masks(instances, made)
        chosen = select_objects(images, told, proposals, self.config)
        wanted = [(key, list(found)) for key, found in groupby(chosen, lambda o: o.image_id)]
        row_of = {image_id: row for row, image_id in enumerate(images["image_id"].to_pylist())}
        places = pa.array([row_of[image_id] for image_id, _ in wanted], pa.int64())
        files = self.files.read(images.take(places))
        rows: list[dict[str, Any]] = []
        for (image_id, objects), file in zip(wanted, files, strict=True):
            crops = cut_crops(decode_rgb(file), [found.mask_rle for found in objects], self.config)
            for found, crop in zip(objects, crops, strict=True):
                rows.append(
                    {
                        "crop_index": first_crop + len(rows),
                        "image_id": image_id,
                        "source_id": found.source_id,
                        "class_index": found.class_index,
                        **crop,
                    }
                )
        return {"crops": pa.Table.from_pylist(rows, SCHEMAS["crops"])}


def cut_crops(
    pixels_HW3: np.ndarray, rles: Sequence[str], config: Config
) -> Iterator[dict[str, Any]]:
    """Objects of an image as columns ``window_xyxy``, ``bbox_xyxy``, ``jpeg`` and ``mask_png``.

    Args:
        pixels_HW3: the whole image, RGB uint8.
        rles: masks of the image's size.
    """
    import cv2

    from gcdis_ray.data import masks

    height, width = pixels_HW3.shape[:2]
    boxes = masks.boxes_xyxy(rles, height, width).tolist()
    windows = [crop_window(box, config.context, height, width) for box in boxes]
    bitmaps = masks.decode_windows(rles, height, width, windows)
    for box, window, bitmap in zip(boxes, windows, bitmaps, strict=True):
        x0, y0, x1, y1 = window
        crop = cv2.cvtColor(pixels_HW3[y0:y1, x0:x1], cv2.COLOR_RGB2BGRA)
        mask = bitmap.view(np.uint8) * np.uint8(255)
        shrink = config.max_side_px / max(x1 - x0, y1 - y0)
        if shrink < 1:
            size = max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink))
            cv2.insertChannel(mask, crop, 3)
            # OpenCV averages four channels of 16 bits almost twice as fast as three and one of 8
            # bits, to the same values
            crop = cv2.resize(crop.astype(np.uint16), size, interpolation=cv2.INTER_AREA)
            crop = crop.astype(np.uint8)
            cover = cv2.extractChannel(crop, 3)
            # a pixel belongs to the mask if half of it does; a hair-thin mask keeps what it touches
            least = 128 if (cover >= 128).any() else 1
            mask = cv2.threshold(cover, least - 1, 255, cv2.THRESH_BINARY)[1]
        quality = [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_BGRA2BGR), quality)[1]
        # one bit a pixel: four times faster to deflate than bytes, and a third of the size
        bits = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_BILEVEL, 1]
        png = cv2.imencode(".png", mask, bits)[1]
        yield {
            "window_xyxy": window,
            "bbox_xyxy": box,
            "jpeg": jpeg.tobytes(),
            "mask_png": png.tobytes(),
        }
