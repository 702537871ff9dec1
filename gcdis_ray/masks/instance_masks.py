"""Labeled objects that came with a box and no mask, and the masks that were made for them.

Annotations stay as they are in ``instances``; what was made lies in ``instance_masks``, with its
origin: ``model`` (the mask head, given the box), ``box`` (the box itself) or ``image`` (the object
is the whole image, whatever box and mask it came with).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import WHOLE_IMAGE


@dataclass(frozen=True)
class MaskCount:
    """How many labeled objects, crowds not counted, have a mask, and how many a box only."""

    annotated: int
    missing: int


def count_masks(instances: Table) -> MaskCount:
    """Look at every labeled object, a shard at a time."""
    annotated = missing = 0
    for shard in instances.iter_shards(["mask_rle", "iscrowd"]):
        without = int(needs_mask(shard).sum())
        missing += without
        annotated += shard.num_rows - int(shard["iscrowd"].to_numpy().sum()) - without
    return MaskCount(annotated, missing)


def needs_mask(instances: pa.Table) -> np.ndarray:
    """(num_rows,) bool: objects with a box only. A crowd is an area to ignore: it needs none."""
    bare = instances["mask_rle"].is_null().to_numpy()
    return bare & ~instances["iscrowd"].to_numpy()


def with_made_masks(instances: pa.Table, made: pa.Table | None) -> pa.Table:
    """The objects of a shard with ``mask_rle``, and ``area_px`` if it is there, of masks that were
    made for them; with ``bbox_xyxy`` and the size of the image, the box of an object that is the
    whole image as well. Objects that have a mask keep it, unless they are the image; those nothing
    was made for stay without.

    Args:
        instances: at least ``instance_id`` and ``mask_rle``.
        made: the same shard of ``instance_masks``.
    """
    if made is None or not made.num_rows:
        return instances
    made_of = {row["instance_id"]: row for row in made.to_pylist()}
    rows = instances.to_pylist()
    for row in rows:
        mask = made_of.get(row["instance_id"])
        if mask is None or (row["mask_rle"] is not None and mask["origin"] != WHOLE_IMAGE):
            continue
        row["mask_rle"] = mask["mask_rle"]
        if "area_px" in row:
            row["area_px"] = mask["area_px"]
        if mask["origin"] == WHOLE_IMAGE and {"bbox_xyxy", "height_px", "width_px"} <= row.keys():
            row["bbox_xyxy"] = [0, 0, row["width_px"], row["height_px"]]
    return pa.Table.from_pylist(rows, instances.schema)


def count_origins(crops: Table, made: Table | None) -> dict[str, int]:
    """Labeled crops by where their mask is from: ``annotated``, ``model``, ``box`` or ``image``."""
    counts = {"annotated": 0, "model": 0, "box": 0, WHOLE_IMAGE: 0}
    for index in range(crops.num_shards):
        origin_of = {}
        if made is not None:
            shard = made.shard(index, ("instance_id", "origin"))
            columns = (shard[name].to_pylist() for name in shard.column_names)
            origin_of = dict(zip(*columns, strict=True))
        shard = crops.shard(index, ("source_id", "class_index"))
        labeled = shard["class_index"].to_numpy() >= 0
        for source_id in shard["source_id"].to_numpy()[labeled].tolist():
            counts[origin_of.get(source_id, "annotated")] += 1
    return counts
