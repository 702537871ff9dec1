"""Targets of the clustering loss: how sharp and when, what the mass keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from toy_discovery import AllParts

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.gcdis.config import DiscoveryConfig
from gcdis_ray.methods.gcdis.targets import Targets

TRAINING = TrainingConfig(steps=20, batch_size=6, micro_batches=2)
COSINES = [torch.rand(3, 4, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]


def made(wanted: torch.Tensor | None = None, **target: Any) -> Targets:
    config = {"queue_size": 24, "losses": {"clustering_from": 0.25}, "target": target}
    device = torch.device("cpu")
    return Targets(DiscoveryConfig.model_validate(config), TRAINING, 4, device, wanted)


def test_the_temperature_falls_once_clustering_has_started():
    course = dict(kind="sharpen", temperature=0.1, warm_temperature=0.5, warm_share=0.5)
    targets = made(**course)
    for step, heat in ((0, 0.5), (5, 0.5), (10, 0.3), (15, 0.1), (19, 0.1)):
        found, _ = targets.take(COSINES, step, AllParts())
        for ours, cosines in zip(found, COSINES, strict=True):
            torch.testing.assert_close(ours, torch.softmax(cosines / heat, dim=1))


def test_dec_divides_by_the_mass_with_this_step():
    targets = made(temperature=0.2)
    whole = torch.softmax(torch.cat(COSINES) / 0.2, dim=1)
    mass = torch.zeros(4)
    for step in range(3):
        found, ours = targets.take(COSINES, step, AllParts())
        mass = 0.75 * mass + whole.sum(dim=0)
        torch.testing.assert_close(ours, mass)
        raw = whole**2 / mass
        torch.testing.assert_close(torch.cat(found), raw / raw.sum(dim=1, keepdim=True))
        targets.keep()


def test_wanted_shares_take_the_place_of_equal_ones():
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1])
    targets = made(wanted, temperature=0.2)
    whole = torch.softmax(torch.cat(COSINES) / 0.2, dim=1)
    found, mass = targets.take(COSINES, 0, AllParts())
    torch.testing.assert_close(mass, whole.sum(dim=0) / wanted)
    raw = whole**2 / (whole.sum(dim=0) / wanted)
    torch.testing.assert_close(torch.cat(found), raw / raw.sum(dim=1, keepdim=True))


def test_the_mass_is_kept_forgotten_and_brought_back():
    first, second = made(), made()
    first.take(COSINES, 0, AllParts())
    first.keep()
    assert 0 < float(first.entropy()) <= math.log(4)
    second.load_state(first.state())
    assert torch.equal(
        first.take(COSINES, 1, AllParts())[1], second.take(COSINES, 1, AllParts())[1]
    )
    first.forget()
    assert float(first.entropy()) == 0
    assert float(first.take(COSINES, 1, AllParts())[1].sum()) == pytest.approx(6)
