"""What the run said of its crops, as columns by crop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.members import Members

Arrays = Mapping[str, NDArray[Any]]
HEAT = {"headness", "temperature"}  # of methods that have them


def assignments_by_crop(inputs: Members) -> dict[str, NDArray[Any]]:
    """``class_index`` (-1: unlabeled), ``cluster_id`` (of curated classes where there are any; -1:
    rejected) and, of methods that have them, ``headness`` and ``temperature``, by crop_index."""
    found = by_crop(inputs.table("assignments"), ("class_index", "cluster_id"))
    if inputs.has("partition"):
        found |= by_crop(inputs.table("partition"), ("cluster_id",))
    if inputs.has("headness"):
        found |= by_crop(inputs.table("headness"), tuple(sorted(HEAT)))
    return found


def by_crop(table: Table, columns: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of a table that has a row for every crop, by crop_index."""
    found = _columns(table, ("crop_index", *columns))
    order = np.argsort(found.pop("crop_index"))
    return {name: values[order] for name, values in found.items()}


def labels_of_unlabeled(
    inputs: Members, assigned: Arrays, truth: CropTruth
) -> tuple[dict[str, NDArray[Any]], CropTruth]:
    """What was said of each unlabeled crop, and how far it can be trusted if that was judged; and
    what these crops show. Crops whose cluster people rejected are not among them."""
    kept_U = assigned["cluster_id"][truth.crop_index_U] >= 0
    if inputs.has("pseudo_labels"):
        judged = ("cluster_id", "probability", "stability", "reliability")
        return _columns(inputs.table("pseudo_labels"), judged), truth.only(kept_U)
    rows = inputs.table("assignments").read(["class_index", "topk_probabilities"])
    best = np.array([row[0] for row in rows["topk_probabilities"].to_pylist()], np.float32)
    said = {
        "cluster_id": assigned["cluster_id"][truth.crop_index_U],
        "probability": best[rows["class_index"].to_numpy() < 0],
    }
    return {name: values[kept_U] for name, values in said.items()}, truth.only(kept_U)


def _columns(table: Table, columns: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Columns of all rows, in shard order."""
    rows = table.read(columns)
    return {name: rows[name].to_numpy() for name in columns}
