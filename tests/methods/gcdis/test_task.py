"""The discovery task: gradients, repeatability, resume, workers, labels or none."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_discovery import MIXED, MODEL, AllParts, Run, make

from gcdis_ray.methods.gcdis.config import ModelConfig


def test_every_loss_reaches_the_student_and_none_the_momentum_encoder():
    run = Run(make(MIXED, losses={"clustering_from": 0.0}, prototypes={"start": "random"}))
    run.step(0)
    run.step(1)  # the momentum encoder now differs from the student
    parts = run.task.prepare([run.task.batch(2, p) for p in (0, 1)], AllParts())
    for name in ("attention", "instance", "class", "clustering", "supervised", "balance"):
        losses = run.module(parts[0])
        losses[name].backward()
        for weight, parameter in run.module.model.encoder.named_parameters():
            assert parameter.grad is not None, (name, weight)
            assert parameter.grad.abs().sum() > 0, (name, weight)
        run.optimizer.zero_grad()
    assert all(p.grad is None for p in run.task.teacher.module.parameters())


def test_keys_are_of_the_second_view_and_own_points_at_them():
    run = Run(make(MIXED))
    parts = run.task.prepare([run.task.batch(0, p) for p in (0, 1)], AllParts())
    for part in parts:
        assert torch.equal(part["key_instances"][part["own"]], part["instances"])
        expected = run.task.teacher.module(part["second"]).projections_ND
        torch.testing.assert_close(part["keys"][part["own"]], expected)
        assert not torch.equal(part["images"], part["second"])
        assert not part["keys"].requires_grad
        assert not part["targets"].requires_grad


@pytest.mark.parametrize("labels", [MIXED, [-1] * 14, [0, 1] * 7, [0] + [-1] * 13])
@pytest.mark.parametrize("share", [0.5, None])
def test_finite_whatever_is_labeled(labels, share):
    run = Run(make(labels, labeled_share=share))
    for step in range(4):
        assert all(np.isfinite(value) for value in run.step(step).values())


class TwoRanks:
    """An exchange between two threads, one part each."""

    def __init__(self) -> None:
        self.barrier, self.slots = threading.Barrier(2, timeout=60), [torch.zeros(0)] * 2

    def of(self, rank: int) -> AllParts:
        exchange = self

        class Mine(AllParts):
            def rows(self, parts: Sequence[Tensor]) -> Tensor:
                exchange.slots[rank] = super().rows(parts)
                exchange.barrier.wait()
                both = torch.cat(exchange.slots)
                exchange.barrier.wait()
                return both

        return Mine()


def test_two_workers_see_what_one_sees():
    alone, ranks, pair = Run(make(MIXED)), TwoRanks(), [Run(make(MIXED)) for _ in (0, 1)]
    alone.step(0)
    whole = alone.task.prepare([alone.task.batch(1, p) for p in (0, 1)], AllParts())

    def work(rank: int) -> Mapping[str, Any]:
        run, exchange = pair[rank], ranks.of(rank)
        (part,) = run.task.prepare([run.task.batch(0, rank)], exchange)
        run.module(part)
        run.task.after_step(0, exchange)
        return run.task.prepare([run.task.batch(1, rank)], exchange)[0]

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(work, (0, 1)))
    for ours, expected in zip(parts, whole, strict=True):
        same = ("images", "own", "key_instances", "key_labels", "temperatures", "num_labeled")
        assert all(torch.equal(ours[name], expected[name]) for name in same)
        # keys of step 0, now in the queue (those of step 1 follow the optimiser)
        torch.testing.assert_close(ours["keys"][12:], expected["keys"][12:])
    states = [run.task.state() for run in (alone, *pair)]
    for state in states[1:]:
        for name in ("sum", "visits"):
            torch.testing.assert_close(state["temperatures"][name], states[0]["temperatures"][name])
        torch.testing.assert_close(state["targets"]["mass"], states[0]["targets"]["mass"])
    assert torch.equal(states[1]["keys"]["keys"], states[2]["keys"]["keys"])


@pytest.mark.parametrize("start", ["linkage", "kmeans"])
def test_prototypes_are_placed_when_clustering_starts(start):
    run = Run(make(MIXED, prototypes={"start": start}))
    student, teacher = run.module.model.classifier, run.task.teacher.module.classifier
    run.step(0)
    assert not student.offset.any()
    run.step(1)  # 0.4 of 6 steps
    assert bool((student.offset.abs().sum(dim=1) > 0).all())
    torch.testing.assert_close(student.prototypes(), teacher.prototypes())


PLACED = [3 if label < 0 and crop % 3 else max(label, 0) for crop, label in enumerate(MIXED)]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_prototypes_start_where_crops_were_placed_even_before_the_first_step(share: float):
    """They tell the placed clusters apart in the features as the batch norm then has them."""
    losses = {"clustering_from": share}
    run = Run(make(MIXED, losses=losses, prototypes={"start": "placed"}, placed=PLACED))
    student, teacher = run.module.model, run.task.teacher.module
    if share:
        run.step(0)
        assert not student.classifier.offset.any()
        run.step(1)
    else:
        run.parts(0)
    torch.testing.assert_close(student.classifier.prototypes(), teacher.classifier.prototypes())
    assert torch.equal(student.norm.running_mean, teacher.norm.running_mean)
    with torch.no_grad():
        (view,) = run.task.views.plain(torch.arange(len(MIXED)))
        seen = teacher.encoder(view)[0]
        found = teacher(view)
    torch.testing.assert_close(teacher.norm.running_mean, seen.mean(dim=0))
    torch.testing.assert_close(teacher.norm.running_var, seen.var(dim=0, correction=0))
    clusters = torch.tensor(PLACED)
    own = found.cosines_NK.gather(1, clusters[:, None]).squeeze(1)
    assert (own == found.cosines_NK.max(dim=1).values).float().mean() > 0.8


def test_only_unlabeled_crops_are_anchored_and_shares_are_those_of_a_batch():
    run = Run(make(MIXED, prototypes={"start": "placed"}, placed=PLACED))
    for part in run.parts(0):
        told = part["labels"] >= 0
        assert bool((part["anchors"][told] == -1).all())
        expected = torch.tensor(PLACED)[part["instances"]][~told]
        assert torch.equal(part["anchors"][~told], expected)
    shares = run.task.placed.shares_of_batch(0.5)
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
    free = [cluster for cluster, label in zip(PLACED, MIXED, strict=True) if label < 0]
    told = [label for label in MIXED if label >= 0]
    expected = [0.5 * told.count(k) / len(told) + 0.5 * free.count(k) / len(free) for k in range(4)]
    assert expected[2] == 0
    ratio = shares[[0, 1, 3]] / torch.tensor([expected[k] for k in (0, 1, 3)])
    torch.testing.assert_close(ratio, ratio[:1].expand(3))
    assert 0 < shares[2] < shares[[0, 1, 3]].min()


@pytest.mark.parametrize("losses", [{"anchor": 1.0}, {"balance_to": "placed"}])
def test_numbers_of_another_placing_are_refused(losses):
    with pytest.raises(ValueError, match="numbers clusters otherwise"):
        make(MIXED, losses=losses, prototypes={"start": "linkage"})


def test_export_gives_every_crop_its_temperature():
    run = Run(make(MIXED))
    for step in range(6):
        run.step(step)
    state = run.task.export()["instance_state"]
    assert state["temperature"].shape == state["headness"].shape == (len(MIXED),)
    assert bool((state["temperature"] >= 0.07 - 1e-6).all())
    assert state["temperature"].unique().numel() > 1
    assert run.task.is_snapshot(6)
    assert not run.task.is_snapshot(5)


def test_mask_as_input_changes_what_the_encoder_sees():
    model = ModelConfig.model_validate(
        {**MODEL.model_dump(), "encoder": {**MODEL.encoder.model_dump(), "mask_input": True}}
    )
    run = Run(make(MIXED, model=model))
    batch = run.task.batch(0, 0)
    assert batch["images"].shape[1] == 4
    assert torch.equal(batch["images"][:, 3:], 2 * batch["masks"] - 1)
    assert np.isfinite(run.step(0)["total"])
