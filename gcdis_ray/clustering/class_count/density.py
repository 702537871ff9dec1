"""Density: clusters are where points crowd (HDBSCAN; Campello, Moulavi, Sander 2013).

It takes no number of clusters, but the least size of one. That is scanned, and chosen where the
known classes are found again best; points that HDBSCAN calls noise are not found.

Densities mean little in many dimensions, so that it looks at the first few principal components.

Shape letters: N points, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gcdis_ray.clustering.class_count.labeled_accuracy import PARTS, log_grid
from gcdis_ray.clustering.class_count.points import Points
from gcdis_ray.clustering.class_count.trials import Job, Trial, diagnostics, judges, recalls

MIN_SAMPLES = 5  # neighbours whose distance is the density; all points if they are fewer


@dataclass(frozen=True)
class Density:
    """The family of HDBSCAN over the least size of a cluster, judged on all known classes.

    Args:
        dims: principal components it sees.
        max_points: it compares all pairs of points; more than this many are thinned out evenly.
        largest_size: the largest least size tried.
    """

    num_known: int
    num_draws: int
    largest_size: int
    dims: int = 16
    max_points: int = 5_000
    num_candidates: int = 12

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        if trials:
            return []
        sizes = log_grid(2, max(3, self.largest_size), self.num_candidates)
        parts = [tuple(float(m) for m in sizes[part::PARTS]) for part in range(PARTS)]
        return [Job(draw, part) for draw in range(self.num_draws) for part in parts if part]

    def run(self, job: Job, points: Points, device: str = "cpu") -> list[Trial]:
        from sklearn.cluster import HDBSCAN

        step = -(-len(points.labels_N) // self.max_points)
        points_ND = points.points_ND[::step, : self.dims]  # by falling variance
        label_N = points.labels_N[::step].numpy()
        trials = []
        for value in job.parameters:
            model = HDBSCAN(
                min_cluster_size=round(value),
                min_samples=min(MIN_SAMPLES, len(label_N)),
                copy=True,  # pyright: ignore[reportArgumentType]
            )
            cluster_N = model.fit_predict(points_ND.numpy()).astype(np.int64)
            inside = torch.from_numpy(cluster_N >= 0)
            shown = (0.0, 0.0)
            if bool(inside.any()):
                shown = diagnostics(points_ND[inside], torch.from_numpy(cluster_N)[inside])
            trials.append(
                Trial(
                    job.draw,
                    value,
                    max(1, int(cluster_N.max()) + 1),
                    recalls(cluster_N, label_N, self.num_known),
                    judges(label_N, self.num_known),
                    *shown,
                )
            )
        return trials
