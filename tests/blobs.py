"""Points whose number of classes is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from gcdis_ray.clustering.class_count.choose import Choice, ClassCount, choose
from gcdis_ray.clustering.class_count.points import CountSettings, Points, prepare
from gcdis_ray.clustering.class_count.trials import Estimator, run_all


def blobs(sizes: Sequence[int], num_known: int, spread: float, seed: int) -> Points:
    """Unit vectors around random directions; every second point of a known class is labeled."""
    generator = torch.Generator().manual_seed(seed)
    center = F.normalize(torch.randn(len(sizes), 24, generator=generator), dim=1)
    label = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    noise = spread * torch.randn(len(label), 24, generator=generator) / 24**0.5
    given = torch.where((label < num_known) & (torch.arange(len(label)) % 2 == 0), label, -1)
    return Points(F.normalize(center[label] + noise, dim=1), given)


def count(estimator: Estimator, points: Points, num_known: int, num_draws: int = 2) -> ClassCount:
    """The estimate, in this process."""
    settings = CountSettings(dims=16)
    draws = [prepare(*points, settings, seed) for seed in range(num_draws)]
    trials = run_all(estimator, lambda jobs: [estimator.run(job, draws[job.draw]) for job in jobs])
    return choose(trials, Choice(num_known))
