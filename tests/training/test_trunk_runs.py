"""Discovery on a body with weights in the real loop: frozen, in part or whole, with cached views or
without; resumed, on two workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_trunk import crops_in, encoder_of, trunk_of
from tables import SCHEMAS
from test_discovery_runs import Outcome, same
from toy_training import FolderCheckpoints, digests, toy_plan
from two_workers import run_in_two

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.problem import Problem
from gcdis_ray.run.work import local_work
from gcdis_ray.store.storage import LocalStorage
from gcdis_ray.training.loop import train

STEPS = 4
PLACED = torch.tensor([0, 1, 0, 1, 0, 2, 3, 2, 0, 3, 3, 4]).numpy()
CASES: dict[str, dict[str, Any]] = {
    "frozen": dict(body="test_resnet", trainable="none", cached_views=2),
    "last block": dict(body="test_vit", trainable=1, cached_views=2),
    "last block, rendered": dict(body="test_resnet", trainable=1, cached_views=0),
    "whole": dict(body="test_resnet", trainable="all"),
}


def task_of(case: str, folder: Path) -> DiscoveryTask:
    """With its crops, weights and views below ``folder``, made once."""
    options = dict(CASES[case])
    encoder = encoder_of(folder, options.pop("body"), **options)
    work = local_work(LocalStorage(str(folder / "made")), SCHEMAS, base=case)
    crops = crops_in(work)
    heads = {"projection_hidden": 8, "projection_dim": 8}
    attention = {"pools": (2, 1), "enabled": case == "whole"}
    model = dict(encoder=encoder, heads=heads, attention=attention)
    return DiscoveryTask(
        Problem(crops, num_known=2, num_outputs=5, seed=5, placed_N=PLACED),
        TrainingConfig(steps=STEPS, batch_size=8, optimizer="adamw", lr=0.01, weight_decay=0.1),
        ModelConfig.model_validate(model),
        DiscoveryConfig(queue_size=16, momentum=0.5),
        trunk_of(work, crops, encoder),
        snapshot_steps=[2, STEPS],
    )


def run(case: str, made: Path, folder: Path, start: int | None = None) -> Outcome:
    task = task_of(case, made)
    checkpoints = FolderCheckpoints(folder / "checkpoints", start=start, save=start is None)
    members = train(task, toy_plan(folder), checkpoints, torch.device("cpu"), lambda progress: None)
    history = folder / "toy/0" / members["history"][0].path if members else None
    return Outcome(digests(members), history, {**task.state(), "student": task.snapshot()})


def worker(rank: int, folder: str, made: str) -> None:
    for case in CASES:
        torch.save(run(case, Path(made), Path(folder, case)).state, f"{folder}/{case}{rank}.pt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, made: Path) -> dict[str, tuple[Path, Outcome]]:
    """Every case in this process, and where."""
    folders = {case: tmp_path_factory.mktemp("one") for case in CASES}
    return {case: (folder, run(case, made, folder)) for case, folder in folders.items()}


@pytest.mark.parametrize("case", CASES)
def test_what_learns_moves_and_nothing_else_is_kept(
    one: dict[str, tuple[Path, Outcome]], made: Path, case: str
):
    encoder = task_of(case, made).trunk.build_encoder()
    start = dict(encoder.named_parameters())
    state = one[case][1].state
    kept = {name for name in state if name.startswith("/student/encoder.")}
    if case == "frozen":
        assert kept == set()
    for name, value in start.items():
        for owner in ("student", "teacher"):
            assert not torch.equal(state[f"/{owner}/encoder.{name}"], value), f"{owner} {name}"
    statistics = [name for name in kept if "running" in name and "attention" not in name]
    first = dict(encoder.named_buffers())
    for name in statistics:
        assert torch.equal(state[name], first[name.removeprefix("/student/encoder.")]), name
    names = {name for name in one[case][1].trace if name in ("anchor", "attention", "balance")}
    assert names == {"anchor", "balance"} | ({"attention"} if case == "whole" else set())


@pytest.mark.parametrize("case", CASES)
def test_resume_gives_the_same_bit_by_bit(
    one: dict[str, tuple[Path, Outcome]], made: Path, case: str
):
    folder, whole = one[case]
    resumed = run(case, made, folder, start=2)
    assert resumed.trace == whole.trace
    assert resumed.digest == whole.digest
    assert same(resumed.state, whole.state)


@pytest.mark.thorough
def test_two_workers_equal_one(one: dict[str, tuple[Path, Outcome]], made: Path, tmp_path: Path):
    run_in_two(worker, tmp_path, str(made))
    for case in CASES:
        for rank in (0, 1):
            assert same(torch.load(tmp_path / f"{case}{rank}.pt"), one[case][1].state), case
