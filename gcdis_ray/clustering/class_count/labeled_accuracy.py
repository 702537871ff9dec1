"""Labeled-accuracy search (Vaze et al. 2022), over points or over classes.

Cluster labeled and unlabeled points together into K clusters without using any label, match
clusters to known classes one-to-one, and see what share of the labeled points lies in its class's
cluster. Too few clusters merge known classes, too many split them.

K is searched on a logarithmic grid, then on a second one around the best. The published search is
Brent's method, which trusts every single value and a single hump; the curve of k-means is noisy and
often flat, and a grid is independent jobs. It also shows people the whole curve.

Averaged over classes (``balanced``) a long tail of small known classes counts as much as its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcdis_ray.clustering.class_count.choose import Grid, plateau
from gcdis_ray.clustering.class_count.measures import silhouette
from gcdis_ray.clustering.class_count.nested_kmeans import nested_kmeans
from gcdis_ray.clustering.class_count.points import CountSettings, Points
from gcdis_ray.clustering.class_count.trials import Job, Trial, judges, recalls

PARTS = 4  # jobs per draw and grid


@dataclass(frozen=True)
class CountGrid:
    """Values of K to try: a logarithmic grid, then one around the best plateau of it.

    Args:
        lowest, highest: of K.
        num_candidates: per grid.
        num_draws: draws of points, each tried at every K.
        tie: scores this much below the best are on its plateau.
    """

    lowest: int
    highest: int
    num_candidates: int
    num_draws: int
    tie: float = 0.005

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        """Jobs of the first grid, then of the second, then none."""
        tried = {round(trial.parameter) for trial in trials}
        first = log_grid(self.lowest, self.highest, self.num_candidates)
        wanted = set(first) if not trials else set()
        if tried == set(first):
            best = plateau(Grid(trials).score(), self.tie)
            low, high = first[max(best[0] - 1, 0)], first[min(best[-1] + 1, len(first) - 1)]
            wanted = set(log_grid(low, high, self.num_candidates)) - tried
        values = sorted(wanted)
        parts = [tuple(float(k) for k in values[part::PARTS]) for part in range(PARTS)]
        return [Job(d, part) for d in range(self.num_draws) for part in parts if part]


@dataclass(frozen=True)
class LabeledAccuracy:
    """The family of plain k-means over K, judged on all known classes."""

    num_known: int
    grid: CountGrid
    settings: CountSettings
    seed: int
    balanced: bool = True

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return self.grid.jobs(trials)

    def run(self, job: Job, points: Points, device: str = "cpu") -> list[Trial]:
        label_N = points.labels_N.numpy()
        weight = judges(label_N, self.num_known)
        if not self.balanced:
            weight = tuple(np.bincount(label_N + 1, minlength=self.num_known + 1)[1:].tolist())
        numbers = [min(round(value), len(label_N)) for value in job.parameters]
        clusterings = nested_kmeans(
            points.points_ND, numbers, self.settings, self.seed, job.draw, device=device
        )
        trials = []
        for value, num, found in zip(job.parameters, numbers, clusterings, strict=True):
            trials.append(
                Trial(
                    job.draw,
                    value,
                    num,
                    recalls(found.cluster_N.numpy(), label_N, self.num_known, self.balanced),
                    weight,
                    silhouette(points.points_ND, found.centers_KD, found.cluster_N),
                    found.inertia / len(label_N),
                )
            )
        return trials


def log_grid(low: int, high: int, num: int) -> list[int]:
    """At most ``num`` whole numbers from ``low`` to ``high``, evenly in their logarithm."""
    if high - low < num:
        return list(range(low, high + 1))
    return sorted({round(v) for v in np.geomspace(low, high, num).tolist()})
