"""Crops by cluster, as plain folders of JPEGs: a folder is called as its class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gcdis_ray.errors import ConfigError
from gcdis_ray.exporting.classes import ExportedClass, classes_of
from gcdis_ray.exporting.file_names import distinct_parts
from gcdis_ray.exporting.run_objects import Limits
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.members import Inputs


def write_crops(
    run: OpenedRun, limits: Limits, folder: Path, show: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """Write ``<class>/<crop_index>.jpg``.

    Args:
        show: is told shards done, shards in all, and of what.

    Returns:
        For the summary: ``classes``, ``crops`` and ``renamed``, {class: its folder} where they
        differ.

    Raises:
        ConfigError: the run has no crops or no clusters; a limit that it knows nothing of.
    """
    inputs, labels = _inputs(run, limits)
    classes = classes_of(run, inputs.json("discovered_classes"))
    folders = dict(zip((c.class_index for c in classes), _folders(classes), strict=True))
    for name in folders.values():
        (folder / name).mkdir()
    crops, written = inputs.table("crops"), 0
    for shard in range(crops.num_shards):
        class_of = dict(_chosen(inputs, labels, limits, shard))
        rows = crops.shard(shard, ["crop_index", "class_index", "jpeg"])
        columns = zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)
        for crop, label, jpeg in columns:
            found = class_of.get(crop, -1)
            if label >= 0:
                found = label if limits.with_labels else -1
            if found >= 0:
                (folder / folders[found] / f"{crop}.jpg").write_bytes(jpeg)
                written += 1
        show(shard + 1, crops.num_shards, "shards")
    renamed = {c.name: folders[c.class_index] for c in classes if folders[c.class_index] != c.name}
    told = [each.plain() for each in classes]
    return {"classes": told, "crops": written, "renamed": renamed}


def _folders(classes: list[ExportedClass]) -> list[str]:
    return distinct_parts([each.name for each in classes])


def _inputs(run: OpenedRun, limits: Limits) -> tuple[Inputs, str]:
    """And the member that says which cluster a crop is in: pseudo-labels say how far it is trusted;
    without them, what people or discovery decided."""
    members = ("pseudo_labels", "partition", "assignments")
    labels = next((member for member in members if run.has(member)), "assignments")
    if labels != "pseudo_labels" and (limits.min_score or limits.min_reliability):
        asked = "--min-score" if limits.min_score else "--min-reliability"
        raise ConfigError(
            "the run has no pseudo-labels, which would say how far a crop's class is trusted",
            where=asked,
            fix="leave it out, or run a recipe with stage label",
        )
    return run.inputs("crops", labels, "discovered_classes"), labels


def _chosen(inputs: Inputs, labels: str, limits: Limits, shard: int) -> Iterator[tuple[int, int]]:
    """(crop_index, class_index)"""
    if labels != "pseudo_labels":
        rows = inputs.table(labels).shard(shard, ["crop_index", "cluster_id"])
        yield from zip(rows["crop_index"].to_pylist(), rows["cluster_id"].to_pylist(), strict=True)
        return
    for row in inputs.table(labels).shard(shard).to_pylist():
        if row["probability"] >= limits.min_score and row["reliability"] >= limits.min_reliability:
            yield row["crop_index"], row["cluster_id"]
