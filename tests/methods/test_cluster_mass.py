"""The mass of clusters: the column sums of a queue, without the queue."""

from __future__ import annotations

import pytest
import torch

from gcdis_ray.methods.cluster_mass import ClusterMass

CPU = torch.device("cpu")


@pytest.mark.parametrize("crops", [12, 24, 120])
def test_it_forgets_at_the_rate_of_a_queue(crops: int):
    mass, sums = ClusterMass(3, crops, 12, CPU), torch.rand(6, 3)
    for step, step_K in enumerate(sums):
        mass.keep(step_K)
        keep = 1 - 12 / crops
        expected = sum(s * keep ** (step - k) for k, s in enumerate(sums[: step + 1]))
        torch.testing.assert_close(mass.state()["mass"], expected)
        torch.testing.assert_close(mass.earlier(), expected * keep)


def test_of_no_crops_nothing_stays():
    mass = ClusterMass(3, 0, 12, CPU)
    mass.keep(torch.rand(3))
    assert not mass.earlier().any()


def test_state_brings_it_back():
    first, second = ClusterMass(3, 24, 12, CPU), ClusterMass(3, 24, 12, CPU)
    first.keep(torch.tensor([1.0, 2.0, 3.0]))
    second.load_state(first.state())
    assert torch.equal(second.earlier(), first.earlier())
    assert float(first.entropy()) == pytest.approx(1.0114, abs=1e-4)
