"""What the sections on classes have in common, found once and when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.report.assigned import Crops, class_of_every_crop, cluster_truths
from gcdis_ray.report.cards import BESIDE, Card, Told, choose_cards, class_cards
from gcdis_ray.report.class_points import ClassPoints, read_class_points
from gcdis_ray.report.crop_map import map_sample
from gcdis_ray.report.judging import Judged, best_overlaps, judge, verdicts
from gcdis_ray.report.view import ClassView, RunView


class SortedRun:
    """A run whose crops have been sorted into classes.

    Args:
        metrics: of an evaluation; empty without one.
    """

    def __init__(self, view: RunView, crops: Crops, metrics: Mapping[str, Any]) -> None:
        self.view, self.crops, self.metrics = view, crops, metrics
        self.classes: list[ClassView] = view.classes()
        self.by_index = {c.class_index: c for c in self.classes}

    @cached_property
    def class_N(self) -> NDArray[np.int64]:
        """Class of every crop, labeled or not, by crop_index; -1 for none."""
        return class_of_every_crop(self.view, self.crops)

    @cached_property
    def spaces(self) -> dict[str, ClassPoints]:
        """``embeddings``, as crops lay before discovery, and ``assignments``, as they lie after it;
        whichever there are."""
        sample = map_sample(self.class_N)
        found = {
            member: read_class_points(self.view, member, self.class_N, sample)
            for member in ("embeddings", "assignments")
        }
        return {member: points for member, points in found.items() if points is not None}

    @cached_property
    def judged(self) -> dict[int, Judged]:
        """In the frozen embeddings, which discovery has not moved, else where it left the crops."""
        points = next(iter(self.spaces.values()), None)
        if points is None:
            return {}
        known = np.array([c.class_index for c in self.classes if c.known], dtype=np.int64)
        stability = {
            index: float(np.nanmean(self.crops.stability[here]))
            for index, here in self.crops.by_class().items()
            if not np.isnan(self.crops.stability[here]).all()
        }
        return judge(points, known, stability, self._placed())

    def _placed(self) -> dict[int, float]:
        table = self.view.table("placed")
        if table is None or not table.num_rows:
            return {}
        rows = table.read(["crop_index", "cluster_id"])
        cluster_N = np.full(len(self.class_N), -1, dtype=np.int64)
        cluster_N[rows["crop_index"].to_numpy()] = rows["cluster_id"].to_numpy()
        unlabeled_N = np.full(len(self.class_N), -1, dtype=np.int64)
        unlabeled_N[self.crops.crop_index] = self.crops.class_index
        return best_overlaps(unlabeled_N, cluster_N)

    @cached_property
    def told(self) -> Told:
        known = [c.class_index for c in self.classes if c.known]
        novel = [i for i in self.sizes if i in self.by_index and not self.by_index[i].known]
        return Told(
            self.by_index,
            cluster_truths(self.view, self.metrics),
            self.judged,
            verdicts(self.judged, known, novel),
        )

    @cached_property
    def sizes(self) -> dict[int, int]:
        """Unlabeled crops of each class that has any."""
        return {index: len(here) for index, here in self.crops.by_class().items()}

    @cached_property
    def chosen(self) -> tuple[list[ClassView], list[ClassView]]:
        """Classes whose cards are on the page, and beside it."""
        return choose_cards(self.classes, self.sizes, self.told)

    @cached_property
    def cards(self) -> list[Card]:
        return class_cards(self.view, self.chosen[0], self.crops, self.told)

    def cards_beside(self) -> list[Card]:
        return class_cards(self.view, self.chosen[1], self.crops, self.told, BESIDE)
