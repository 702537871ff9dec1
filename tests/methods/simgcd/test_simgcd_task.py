"""SimGCD's training: what it learns, starts from, repeats and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_meta import like_a_gpu
from toy_discovery import Run
from toy_heads import (
    CLASSES,
    NUM,
    PLACED,
    TRUTH,
    accuracy,
    in_two,
    make,
    on_device,
    sorted_crops,
    trained,
)

from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.simgcd.config import Config
from gcdis_ray.methods.simgcd.task import SimGCDTask

STEPS = 30
PAPER: dict[str, Any] = {"start": "random", "sizes": "uniform", "losses": {"balance_crops": 0}}
HELD: dict[str, Any] = {"hold_out": HoldOut((0,), (1,)), "measure_every": 2}


def task(steps: int = 6, **options: Any) -> Any:
    return make(SimGCDTask, Config, steps, **options)


@pytest.mark.parametrize("options", [{}, PAPER], ids=["placed", "paper"])
def test_it_finds_classes_nobody_named(options: dict[str, Any]):
    run = Run(task(STEPS, **options))
    for step in range(STEPS):
        values = run.step(step)
    assert np.mean(PLACED == TRUTH) == 0.875  # what it starts from is not right yet
    assert accuracy(run.task) == 1
    assert values["distillation"] < 0.1
    assert values["cluster_entropy"] > 1.2  # ln 4 is 1.39


def test_outputs_begin_at_the_placed_clusters():
    run = Run(task())
    run.parts(0)
    output_N = sorted_crops(run.task)
    assert np.mean(output_N == PLACED) > 0.8
    assert float(run.task.network.norm.running_var.min()) > 0.5  # pyright: ignore
    found = run.task.network.prototypes()
    again = Run(task(start="random"))
    again.parts(0)
    assert not torch.allclose(found, again.task.network.prototypes(), atol=0.1)


def test_unlabeled_crops_are_anchored_where_they_were_placed():
    run = Run(task())
    for part in run.parts(0):
        labels = run.task.views.labels[part["instances"]]
        placed = torch.from_numpy(PLACED)[part["instances"]]
        assert torch.equal(part["anchors"], torch.where(labels < 0, placed, -1))
        assert float(part["num_anchors"]) == int((labels < 0).sum()) == 6


def test_the_view_that_teaches_grows_surer():
    run, heats = Run(task(100, losses={"warm_share": 0.5})), []
    for step in (1, 25, 50, 99):
        heats.append(round(run.parts(step)[0]["teacher_temperature"], 4))
    assert heats == [0.0694, 0.055, 0.04, 0.04]


@pytest.mark.parametrize("share", [0.5, None])
def test_sizes_are_those_that_a_batch_should_show(share: float | None):
    run = Run(task(labeled_share=share))
    shares = run.task.shares.numpy()
    labels = run.task.views.labels.numpy()
    clusters = np.where(labels >= 0, labels, PLACED)
    weight = np.ones(NUM)
    if share:
        weight = np.where(labels >= 0, 0.5 / (labels >= 0).sum(), 0.5 / (labels < 0).sum())
    expected = np.bincount(clusters, weight, CLASSES) / weight.sum()
    np.testing.assert_allclose(shares, expected, rtol=1e-5)
    assert Run(task(sizes="uniform")).task.shares.tolist() == [0.25] * 4


@pytest.mark.parametrize("options", [{}, PAPER, HELD], ids=["placed", "paper", "held"])
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
    first, second = in_two(SimGCDTask, Config, HELD, tmp_path)
    assert first.equals(whole)
    assert second.state.keys() == whole.state.keys()
    assert first._replace(digests={}).equals(second)


def test_a_step_reads_nothing_back_from_its_device(tmp_path: Path):
    here = on_device(task(**PAPER), tmp_path, "cpu")
    with like_a_gpu():
        run = on_device(task(**PAPER), tmp_path, "meta")
        for step in (1, 2):  # the first one places prototypes, which reads them
            run.step(step, [run.to_device(here.task.batch(step, part)) for part in (0, 1)])
