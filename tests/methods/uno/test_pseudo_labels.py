"""UNO's pseudo-labels: over a whole step and what is remembered, whatever the parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy_discovery import AllParts

from gcdis_ray.config import TrainingConfig
from gcdis_ray.losses.sinkhorn import sinkhorn
from gcdis_ray.methods.uno.config import PseudoLabelConfig
from gcdis_ray.methods.uno.pseudo_labels import PseudoLabels, told

HEADS, KNOWN, K = 2, 2, 5
SHARES = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1])
STEP = 12  # crops
LABELS = torch.tensor([0, -1, -1, 1, -1, -1, -1, 0, -1, -1, 1, -1])


def step_cosines(seed: int) -> Tensor:
    """(crops, V, H, K)"""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(STEP, 2, HEADS, K, generator=generator) - 1


def made(num_parts: int, remembered: int = 0, **changes: Any) -> PseudoLabels:
    training = TrainingConfig(batch_size=STEP, micro_batches=num_parts)
    config = PseudoLabelConfig.model_validate(changes)
    return PseudoLabels(config, training, HEADS, KNOWN, SHARES, remembered)


def taken(pseudo: PseudoLabels, cosines: Tensor, num_parts: int) -> Tensor:
    """(crops, V, H, K) of a step computed in parts."""
    size = STEP // num_parts
    parts = [
        dict(
            part=p,
            labels=LABELS[p * size : (p + 1) * size],
            instances=torch.arange(p * size, (p + 1) * size),
        )
        for p in range(num_parts)
    ]
    by_view = [part.transpose(0, 1).flatten(0, 1) for part in cosines.split(size)]
    return torch.cat(pseudo.take(by_view, parts, AllParts()))


@pytest.mark.parametrize("novel_only", [True, False])
def test_each_view_and_head_is_a_transport_of_its_own(novel_only: bool):
    cosines = step_cosines(0)
    found = taken(made(2, novel_only=novel_only), cosines, 2)
    free, first = LABELS < 0, KNOWN if novel_only else 0
    assert not found[~free].any()
    assert not found[:, :, :, :first].any()
    for view in range(2):
        for head in range(HEADS):
            rows = cosines[free, view, head, first:]
            expected = sinkhorn(rows, 0.05, 3, SHARES[first:])
            torch.testing.assert_close(found[free, view, head, first:], expected)


@pytest.mark.parametrize("remembered", [0, 24])
def test_parts_change_no_number(remembered: int):
    one, three = made(1, remembered), made(3, remembered)
    for seed in range(3):
        cosines = step_cosines(seed)
        assert torch.equal(taken(one, cosines, 1), taken(three, cosines, 3))
        one.keep()
        three.keep()


def test_crops_of_earlier_steps_share_the_sizes():
    pseudo, earlier, now = made(2, 2 * STEP, iterations=100), step_cosines(1), step_cosines(2)
    taken(pseudo, earlier, 2)
    pseudo.keep()
    found = taken(pseudo, now, 2)
    free = LABELS < 0
    both = torch.cat([now[free], earlier[free]])[:, 0, 1]
    expected = sinkhorn(both, 0.05, 100, SHARES)
    torch.testing.assert_close(found[free, 0, 1], expected[: int(free.sum())])
    alone = taken(made(2, 0, iterations=100), now, 2)
    assert not torch.allclose(alone, found, atol=1e-2)


def test_state_brings_the_memory_back():
    first, second = made(2, STEP), made(2, STEP)
    taken(first, step_cosines(1), 2)
    first.keep()
    second.load_state(first.state())
    now = step_cosines(2)
    assert torch.equal(taken(first, now, 2), taken(second, now, 2))


def test_a_step_without_an_unlabeled_crop_has_none():
    training = TrainingConfig(batch_size=2, micro_batches=1)
    pseudo = PseudoLabels(PseudoLabelConfig.model_validate({}), training, HEADS, KNOWN, SHARES, 0)
    part = dict(part=0, labels=torch.tensor([0, 1]), instances=torch.arange(2))
    (found,) = pseudo.take([torch.zeros(4, HEADS, K)], [part], AllParts())
    assert found.shape == (2, 2, HEADS, K)
    assert not found.any()


def test_told_is_one_hot_by_every_view_and_head():
    found = told(torch.tensor([1, -1]), HEADS, 3)
    assert found.shape == (2, 2, HEADS, 3)
    assert bool((found[0] == torch.tensor([0.0, 1.0, 0.0])).all())
    assert not found[1].any()
