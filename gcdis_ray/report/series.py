"""Rows of a run brought into the shape that charts and tables draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcdis_ray.data.images.image_files import listed_images
from gcdis_ray.report.view import RunView, printable
from gcdis_ray.store.artifacts import Artifact


def read_history(artifact: Artifact) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """quantity -> (steps, values) in step order, of an artifact with a table ``history``; below
    ``pace/`` how fast the training went."""
    rows = artifact.table("history").read()
    names = rows["name"].to_pylist()
    steps, values = rows["step"].to_numpy(), rows["value"].to_numpy()
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(printable(name), []).append(place)
    logged = {
        name: (steps[at], values[at])
        for name, found in places.items()
        for at in [np.array(found)[np.argsort(steps[found], kind="stable")]]
    }
    return logged | read_pace(artifact)


def read_pace(artifact: Artifact) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """``pace/<quantity>`` -> (steps, values), without those that are not known; empty of an
    artifact without a training."""
    columns = {name: np.array(values, float) for name, values in artifact.manifest.pace.items()}
    steps = columns.pop("step", np.zeros(0))
    known = {name: np.isfinite(values) for name, values in columns.items()}
    return {
        f"pace/{name}": (steps[known[name]].astype(int), values[known[name]])
        for name, values in columns.items()
        if known[name].any()
    }


def quarantine_summary(view: RunView, first: int = 20) -> dict[str, Any] | None:
    """Count per split and reason, and the first records; None while nobody has looked."""
    made = view.each("quarantine").values()
    if not made:
        return None
    rows: Sequence[dict[str, Any]] = [
        row for artifact in made for row in artifact.table("quarantine").read().to_pylist()
    ]
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (printable(row["split"]), printable(row["reason"]).partition(":")[0])
        counts[key] = counts.get(key, 0) + 1
    return {
        "total": len(rows),
        "counts": sorted(((*key, n) for key, n in counts.items()), key=lambda c: (-c[2], c)),
        "first": [{k: printable(v) for k, v in row.items()} for row in rows[:first]],
    }


def image_counts(view: RunView) -> dict[str, int]:
    """Images per split, empty while there are none."""
    counts: dict[str, int] = {}
    made = view.of("images")
    for shard in listed_images(made).iter_shards(["split"]) if made else ():
        for split in shard["split"].to_pylist():
            counts[split] = counts.get(split, 0) + 1
    return counts
