"""What discovery's instance-wise temperature did: crops by how common they look, and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcdis_ray.metrics.frequency import THIRDS, frequency_thirds
from gcdis_ray.report.view import ClassView, RunView, printable


@dataclass(frozen=True)
class Heat:
    """One entry per crop that discovery trained on, labeled or not; arrays of shape (N,).

    ``class_index`` is the class the crop came with, or was sorted into; -1 where that was rejected.
    """

    class_index: np.ndarray
    headness: np.ndarray
    temperature: np.ndarray

    def thirds(self) -> dict[str, np.ndarray]:
        """Headness of visited crops in the largest, middle and smallest third of the classes."""
        in_one = self.class_index[self.class_index >= 0]
        classes, sizes = np.unique(in_one, return_counts=True)
        third_of = frequency_thirds(dict(zip(classes.tolist(), sizes.tolist(), strict=True)))
        found = {}
        for third in THIRDS:
            mine = np.isin(self.class_index, [c for c, t in third_of.items() if t == third])
            found[third] = self.headness[mine & (self.headness > 0)]
        return found


@dataclass(frozen=True)
class ClassHeat:
    """One class: how many crops it has, and how warm and how common they are on average."""

    name: str
    known: bool
    num_crops: int
    headness: float
    temperature: float


def read_heat(view: RunView) -> Heat | None:
    """Headness and temperature of every crop; None where the method gives none."""
    made = view.of("assignments")
    if made is None or not made.has("headness") or not made.table("assignments").num_rows:
        return None
    rows = made.table("assignments").read(["crop_index", "class_index", "cluster_id"])
    heat = made.table("headness").read()
    given, found = rows["class_index"].to_numpy(), rows["cluster_id"].to_numpy()
    if (partition := view.table("partition")) is not None:
        found = partition.read(["cluster_id"])["cluster_id"].to_numpy()
    order = np.argsort(heat["crop_index"].to_numpy())[rows["crop_index"].to_numpy()]
    return Heat(
        np.where(given >= 0, given, found),
        heat["headness"].to_numpy()[order].astype(np.float64),
        heat["temperature"].to_numpy()[order].astype(np.float64),
    )


def true_class_heat(metrics: Mapping[str, Any]) -> list[ClassHeat]:
    """By true class, from the evaluation; empty where it has not measured that."""
    return [
        ClassHeat(
            printable(row["name"]),
            bool(row["known"]),
            int(row["num_training_crops"]),
            float(row["headness"]),
            float(row["temperature"]),
        )
        for row in metrics.get("per_class") or []
        if row.get("num_training_crops") and row.get("headness") is not None
    ]


def assigned_class_heat(heat: Heat, classes: Sequence[ClassView]) -> list[ClassHeat]:
    """By the class that crops came with or were sorted into; classes without crops are left out."""
    found = []
    for item in classes:
        mine = heat.class_index == item.class_index
        if mine.any():
            means = float(heat.headness[mine].mean()), float(heat.temperature[mine].mean())
            found.append(ClassHeat(item.name, item.known, int(mine.sum()), *means))
    return found
