"""UNO's training: what it learns, starts from, repeats and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_meta import like_a_gpu
from toy_discovery import Run
from toy_heads import CLASSES, PLACED, TRUTH, accuracy, in_two, make, on_device, trained

from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.uno.config import Config
from gcdis_ray.methods.uno.task import UnoTask

STEPS = 30
SMALL: dict[str, Any] = {"novel": {"heads": 2}}
OVER: dict[str, Any] = {"novel": {"heads": 2, "over_heads": 2}}
RANDOM: dict[str, Any] = {"start": "random", "sizes": "uniform", **SMALL}
HELD: dict[str, Any] = {"hold_out": HoldOut((0,), (1,)), "measure_every": 2, **OVER}


def task(steps: int = 6, **options: Any) -> Any:
    return make(UnoTask, Config, steps, **options)


@pytest.mark.parametrize("options", [SMALL, RANDOM], ids=["placed", "random"])
def test_it_finds_classes_nobody_named(options: dict[str, Any]):
    run = Run(task(STEPS, **options))
    for step in range(STEPS):
        values = run.step(step)
    assert np.mean(PLACED == TRUTH) == 0.875  # what it starts from is not right yet
    assert accuracy(run.task) == 1
    assert values["clustering"] < 0.1


def targets(run: Run, step: int, name: str = "targets") -> tuple[torch.Tensor, torch.Tensor]:
    """(n, V, H, K) of a step and the crops they are of."""
    parts = run.parts(step)
    return tuple(torch.cat([part[n] for part in parts]) for n in (name, "instances"))  # type: ignore


def test_until_pseudo_labels_are_used_placed_clusters_teach():
    run = Run(task(10, pseudo_labels={"after": 0.2}, **SMALL))
    early, crops = targets(run, 1)
    told = torch.from_numpy(np.where(run.task.views.labels >= 0, TRUTH, PLACED))
    assert torch.equal(early.argmax(dim=3), told[crops][:, None, None].expand(-1, 2, 2))
    assert bool((early.amax(dim=3) == 1).all())
    late, _ = targets(run, 2)
    assert not bool((late.amax(dim=3) == 1).all())
    torch.testing.assert_close(late.sum(dim=3), torch.ones_like(late[..., 0]))


def test_until_then_labels_alone_teach_a_random_start():
    run = Run(task(10, pseudo_labels={"after": 0.2}, **RANDOM))
    early, crops = targets(run, 1)
    told = run.task.views.labels[crops] >= 0
    assert bool((early.sum(dim=3)[told] == 1).all())
    assert not early[~told].any()


def test_an_anchor_is_a_share_of_each_pseudo_label():
    one, two = (
        Run(task(10, pseudo_labels={"after": 0, "anchor": anchor}, **SMALL)) for anchor in (0, 0.3)
    )
    (free, crops), (held, _) = targets(one, 0), targets(two, 0)
    labels = one.task.views.labels[crops]
    placed = torch.nn.functional.one_hot(torch.from_numpy(PLACED)[crops], CLASSES).float()
    expected = 0.7 * free + 0.3 * placed[:, None, None]
    torch.testing.assert_close(held[labels < 0], expected[labels < 0])
    assert torch.equal(held[labels >= 0], free[labels >= 0])


def test_looking_ahead_leaves_no_trace():
    run = Run(task(**OVER))
    before = {name: value.clone() for name, value in run.task.network.state_dict().items()}
    parts = run.parts(0)
    after = run.task.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(part["targets"].requires_grad for part in parts)
    assert parts[0]["over_targets"].shape == (12, 2, 2, 2 + 3 * 2)


@pytest.mark.parametrize("options", [SMALL, RANDOM, HELD], ids=["placed", "random", "held"])
def test_resumed_anywhere_it_ends_with_the_same_bytes(options: dict[str, Any], tmp_path: Path):
    whole = trained(task(snapshot_steps=[3, 6], **options), tmp_path)
    assert {"encoder", "history", "snapshot_3", "snapshot_6"} <= whole.digests.keys()
    for stop in (1, 4):
        again = trained(task(snapshot_steps=[3, 6], **options), tmp_path, start=stop)
        assert again.equals(whole)
    if options is HELD:
        assert [step for step, _ in whole.state["/curve/points"]] == [2, 4, 6]


@pytest.mark.thorough
def test_two_workers_equal_one_bit_by_bit(tmp_path: Path):
    whole = trained(task(**HELD), tmp_path / "one")
    first, second = in_two(UnoTask, Config, HELD, tmp_path)
    assert first.equals(whole)
    assert first._replace(digests={}).equals(second)


def test_a_step_reads_nothing_back_from_its_device(tmp_path: Path):
    here = on_device(task(**OVER), tmp_path, "cpu")
    with like_a_gpu():
        run = on_device(task(**OVER), tmp_path, "meta")
        for step in (1, 2):  # the first one places prototypes, which reads them
            run.step(step, [run.to_device(here.task.batch(step, part)) for part in (0, 1)])
