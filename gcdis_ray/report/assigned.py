"""Which class each unlabeled crop was given, how far that is trusted, and how true it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcdis_ray.lookup import places
from gcdis_ray.report.view import RunView


@dataclass(frozen=True)
class Crops:
    """One entry per unlabeled crop that discovery assigned and nobody rejected, in stored order.

    All arrays have shape (N,). ``stability`` and ``reliability`` are NaN without pseudo-labels.
    """

    crop_index: np.ndarray
    class_index: np.ndarray
    probability: np.ndarray
    stability: np.ndarray
    reliability: np.ndarray

    def by_class(self) -> dict[int, np.ndarray]:
        """Class -> positions of its crops, in stored order; classes without any are left out."""
        if not len(self.class_index):
            return {}
        order = np.argsort(self.class_index, kind="stable")
        classes, starts = np.unique(self.class_index[order], return_index=True)
        return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True))

    def trust(self) -> np.ndarray:
        """What to rank crops by: reliability, then probability; probability alone without it."""
        refined = self.reliability + 1e-6 * self.probability
        return np.where(np.isnan(self.reliability), self.probability - 1, refined)


@dataclass(frozen=True)
class ClusterTruth:
    """What ground truth says of one cluster; None where it says nothing."""

    purity: float | None = None
    majority: str | None = None
    mapped: str | None = None


def read_crops_assigned(view: RunView) -> Crops | None:
    """Unlabeled crops with their classes, or None before they have been sorted."""
    table = view.table("assignments")
    if table is None:
        return None
    partition = view.table("partition")
    columns = ["crop_index", "class_index", "cluster_id", "topk_probabilities"]
    parts: list[tuple[np.ndarray, ...]] = []
    for number, shard in enumerate(table.iter_shards(columns)):
        given = shard if partition is None else partition.shard(number, ["cluster_id"])
        best = [p[0] if p else 0.0 for p in shard["topk_probabilities"].to_pylist()]
        cluster = given["cluster_id"].to_numpy().astype(np.int64)
        unlabeled = (shard["class_index"].to_numpy() < 0) & (cluster >= 0)
        parts.append(
            (
                shard["crop_index"].to_numpy()[unlabeled],
                cluster[unlabeled],
                np.array(best, dtype=np.float64)[unlabeled],
            )
        )
    crop_index, class_index, probability = (
        np.concatenate(column) if parts else np.zeros(0) for column in zip(*parts, strict=True)
    )
    stability, reliability = (np.full(len(crop_index), np.nan) for _ in range(2))
    labels = view.table("pseudo_labels")
    if labels is not None and len(crop_index):
        order = np.argsort(crop_index, kind="stable")
        rows = labels.read(["crop_index", "cluster_id", "stability", "reliability"])
        wanted = rows["crop_index"].to_numpy()
        place = places(wanted, crop_index[order].astype(np.int64))
        known = place >= 0
        here = order[place]
        class_index[here[known]] = rows["cluster_id"].to_numpy()[known]
        stability[here[known]] = rows["stability"].to_numpy()[known]
        reliability[here[known]] = rows["reliability"].to_numpy()[known]
    return Crops(crop_index, class_index, probability, stability, reliability)


def class_of_every_crop(view: RunView, crops: Crops) -> np.ndarray:
    """(N,) int64 by crop_index: the class that each crop came with or was sorted into, -1 for one
    that is in none."""
    table = view.table("assignments")
    if table is None or not table.num_rows:
        return np.zeros(0, dtype=np.int64)
    rows = table.read(["crop_index", "class_index"])
    index, given = rows["crop_index"].to_numpy(), rows["class_index"].to_numpy()
    found = np.full(int(index.max()) + 1, -1, dtype=np.int64)
    found[index] = given
    found[crops.crop_index] = crops.class_index
    return found


def cluster_truths(view: RunView, metrics: Mapping[str, Any]) -> dict[int, ClusterTruth]:
    """By class_index, from ``metrics["clusters"]``; empty without ground truth."""
    names = view.category_names()

    def named(category_id: int | None) -> str | None:
        return None if category_id is None else names.get(category_id, f"category {category_id}")

    return {
        int(row["class_index"]): ClusterTruth(
            row.get("purity"),
            named(row.get("majority_category_id")),
            named(row.get("mapped_category_id")),
        )
        for row in metrics.get("clusters") or []
    }
