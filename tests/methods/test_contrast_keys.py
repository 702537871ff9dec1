"""Keys of a step before those of the queue, each crop's own in its place."""

from __future__ import annotations

import pytest
import torch
from toy_discovery import AllParts

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.contrast_keys import ContrastKeys

TRAINING = TrainingConfig(batch_size=6, micro_batches=2)


def made(queued_contrast: bool = True) -> ContrastKeys:
    device = torch.device("cpu")
    return ContrastKeys(8, 4, TRAINING, device, queued_contrast=queued_contrast)


def step(keys: ContrastKeys, number: int) -> tuple[list[torch.Tensor], dict]:
    own = [torch.full((3, 4), 10.0 * number + part) for part in (0, 1)]
    parts = [
        {"labels": torch.tensor([0, -1, -1]), "instances": torch.arange(3) + 3 * part}
        for part in (0, 1)
    ]
    return own, keys.take(own, parts, AllParts())


@pytest.mark.parametrize("queued_contrast", [True, False])
def test_the_step_comes_first_and_joins_the_queue_when_it_is_over(queued_contrast: bool):
    keys = made(queued_contrast)
    for number in range(3):
        own, shown = step(keys, number)
        queued = min(8, 6 * number)
        assert len(shown["keys"]) == len(shown["key_labels"]) == 6 + queued
        assert shown["num_contrasted"] == 6 + queued * queued_contrast
        assert float(shown["num_labeled"]) == 1
        for part in (0, 1):
            assert torch.equal(shown["keys"][keys.own(part)], own[part])
            assert (shown["key_instances"][keys.own(part)] // 3 == part).all()
        keys.enqueue()


def test_state_brings_the_queue_back():
    first, second = made(), made()
    for number in range(2):
        step(first, number)
        first.enqueue()
    second.load_state(first.state())
    _, ours = step(first, 2)
    _, theirs = step(second, 2)
    assert torch.equal(ours["keys"], theirs["keys"])
    assert ours["num_contrasted"] == theirs["num_contrasted"] == 14
