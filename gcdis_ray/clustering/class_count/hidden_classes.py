"""Pseudo-novel hold-out: known classes play novel ones.

A fifth of the known classes is hidden in turn. Semi-supervised k-means with the labels of the
others divides all points into K clusters, and K is good where the hidden classes are found again
whole, in clusters of their own. This is the only signal from labels that is about novelty.

The number of clusters is that of all classes, hidden ones included, so it needs no correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gcdis_ray.clustering.class_count.labeled_accuracy import CountGrid
from gcdis_ray.clustering.class_count.measures import silhouette
from gcdis_ray.clustering.class_count.nested_kmeans import nested_kmeans
from gcdis_ray.clustering.class_count.points import CountSettings, Points
from gcdis_ray.clustering.class_count.trials import Job, Trial, hidden_classes, judges, recalls


@dataclass(frozen=True)
class HiddenClasses:
    """The family of semi-supervised k-means over K, judged on hidden classes.

    A single known class cannot be hidden: then it judges, and plain k-means is what is left.
    """

    num_known: int
    grid: CountGrid
    settings: CountSettings
    seed: int

    def jobs(self, trials: Sequence[Trial]) -> list[Job]:
        return self.grid.jobs(trials)

    def run(self, job: Job, points: Points, device: str = "cpu") -> list[Trial]:
        label_N = points.labels_N.numpy()
        classes = np.unique(label_N[label_N >= 0]).tolist()
        hidden = hidden_classes(classes, job.draw, self.seed)
        visible = [c for c in classes if c not in hidden] if hidden else []
        seen_N = torch.full_like(points.labels_N, -1)
        for place, label in enumerate(visible):
            seen_N[points.labels_N == label] = place
        most = len(visible) + int((seen_N < 0).sum())  # a labeled point starts no other cluster
        numbers = [max(min(round(value), most), len(visible)) for value in job.parameters]
        clusterings = nested_kmeans(
            points.points_ND, numbers, self.settings, self.seed, job.draw, seen_N, device
        )
        trials = []
        for value, num, found in zip(job.parameters, numbers, clusterings, strict=True):
            cluster_N = found.cluster_N.numpy()
            trials.append(
                Trial(
                    job.draw,
                    value,
                    num,
                    recalls(cluster_N, label_N, self.num_known),
                    judges(label_N, self.num_known, hidden, seen=0),
                    silhouette(points.points_ND, found.centers_KD, found.cluster_N),
                    found.inertia / len(label_N),
                )
            )
        return trials
