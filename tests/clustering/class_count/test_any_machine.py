"""One answer on any machine: other instruction sets and numbers of threads round differently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
COUNT = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from blobs import blobs
from gcdis_ray.clustering.class_count.points import prepare_draws
from gcdis_ray.clustering.class_count.trials import run_all
from gcdis_ray.stages import count

points, labels = blobs([60, 50, 40, 30, 20, 15, 12, 10, 60, 9], 5, 0.9, seed=1)
config = count.Config.model_validate({"num_seeds": 2, "num_candidates": 10})
sizes = torch.bincount(labels + 1).tolist()
draws, space = prepare_draws(lambda rows: points[rows], labels, count.settings(config), range(2))
trials = {
    method: run_all(one, lambda jobs: [one.run(job, draws[job.draw]) for job in jobs])
    for method, one in count.estimators(config, sizes, 0).items()
}
found = count.class_counts(config, sizes, 0, trials)
print(space, {method: (each.num_classes, each.interval) for method, each in found.items()})
"""


@pytest.mark.thorough
def test_the_count_is_that_of_any_instruction_set_and_number_of_threads() -> None:
    told = set()
    for capability in ("default", "avx2"):
        for threads in ("1", "2"):
            environment = os.environ | {
                "ATEN_CPU_CAPABILITY": capability,
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            }
            done = subprocess.run(
                [sys.executable, "-c", COUNT, threads],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            told.add(done.stdout)
    assert len(told) == 1, told
    assert "combined" in told.pop()
