"""Images that are one object each: the whole image is its mask, and its box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gcdis_ray.errors import DataError
from gcdis_ray.instances.external_masks import proposal_id
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import INSTANCE_MASKS, PROPOSALS, WHOLE_IMAGE
from gcdis_ray.words import counted, cut

_EXAMPLES = 3
_SIZES = ("image_id", "height_px", "width_px")


def check_one_object(images: Table, instances: Table, where: str) -> None:
    """Raise DataError, with the key ``where``, if a labeled image has several objects: none of them
    is the image. Crowds are no objects."""
    several: list[tuple[str, int]] = []
    for index in range(images.num_shards):
        objects = instances.shard(index, ("image_id", "iscrowd"))
        single = objects.filter(pa.array(~objects["iscrowd"].to_numpy()))
        count = Counter(single["image_id"].to_pylist())
        shard = images.shard(index, ("image_id", "uri"))
        for image_id, uri in zip(*(shard[n].to_pylist() for n in shard.column_names), strict=True):
            if count[image_id] > 1:
                several.append((uri, count[image_id]))
    if several:
        shown = ", ".join(f"{n} in {cut(uri)}" for uri, n in several[:_EXAMPLES])
        raise DataError(
            f"{counted(len(several), 'labeled image has', 'labeled images have')} several objects "
            f"({shown}), and source: image takes an image for one",
            where=where,
            fix="use source: model or external, or leave these images out",
        )


@dataclass(frozen=True)
class WholeImages:
    """Shard task over ``[image_index, instances]``: every unlabeled image is a proposal, and every
    labeled object is its image."""

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        return self.take

    def take(self, index: int, images: pa.Table, instances: pa.Table) -> Mapping[str, pa.Table]:
        unlabeled = [row for row in images.to_pylist() if row["split"] == "unlabeled"]
        proposals = [
            {
                **{name: row[name] for name in _SIZES},
                **_whole(row),
                "proposal_id": proposal_id(index, place),
                "bbox_xyxy": [0, 0, row["width_px"], row["height_px"]],
                "objectness": 1.0,
            }
            for place, row in enumerate(unlabeled)
        ]
        masks = [
            {"instance_id": row["instance_id"], "image_id": row["image_id"], **_whole(row)}
            for row in instances.select(("instance_id", "iscrowd", *_SIZES)).to_pylist()
            if not row["iscrowd"]
        ]
        return {
            "proposals": pa.Table.from_pylist(proposals, PROPOSALS),
            "instance_masks": pa.Table.from_pylist(masks, INSTANCE_MASKS),
        }


def _whole(image: Mapping[str, Any]) -> dict[str, Any]:
    height, width = image["height_px"], image["width_px"]
    mask = coco_rle.rle_from_counts([0, height * width], height, width)
    return {"mask_rle": mask, "area_px": float(height * width), "origin": WHOLE_IMAGE}
