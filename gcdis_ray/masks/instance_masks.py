"""Labeled objects that came with a box and no mask, and the masks that were made for them.

Annotations stay as they are in ``instances``; what was made lies in ``instance_masks``, with its
origin: ``model`` (the mask head, given the box) or ``box`` (the box itself).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gcdis_ray.store.artifacts import Table


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
    made for them. Objects that have a mask keep it; those nothing was made for stay without.

    Args:
        instances: at least ``instance_id`` and ``mask_rle``.
        made: the same shard of ``instance_masks``.
    """
    if made is None or not made.num_rows:
        return instances
    columns = (made[name].to_pylist() for name in ("instance_id", "mask_rle", "area_px"))
    mask_of = {one: (rle, area) for one, rle, area in zip(*columns, strict=True)}
    ids, rles = instances["instance_id"].to_pylist(), instances["mask_rle"].to_pylist()
    found = [mask_of.get(one) if rle is None else None for one, rle in zip(ids, rles, strict=True)]
    filled = _replaced(
        instances, "mask_rle", [m[0] if m else rle for m, rle in zip(found, rles, strict=True)]
    )
    if "area_px" in instances.column_names:
        areas = instances["area_px"].to_pylist()
        filled = _replaced(
            filled, "area_px", [m[1] if m else area for m, area in zip(found, areas, strict=True)]
        )
    return filled


def _replaced(table: pa.Table, name: str, values: list) -> pa.Table:
    place = table.schema.get_field_index(name)
    column = table.schema.field(place)
    return table.set_column(place, column, pa.array(values, column.type))


def count_origins(crops: Table, made: Table | None) -> dict[str, int]:
    """Labeled crops by where their mask comes from: ``annotated``, ``model``, ``box``."""
    counts = {"annotated": 0, "model": 0, "box": 0}
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
