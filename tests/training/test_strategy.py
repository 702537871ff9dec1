"""Two gloo processes against one, DeepSpeed against DDP: all cases share one pair of processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strategies import can_be_had, needs_deepspeed
from toy_training import FolderCheckpoints, ToyTask, digests, toy_config, toy_plan
from two_workers import run_in_two

from gcdis_ray.errors import ConfigError
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.training.exchange import GroupExchange, parts_of_rank
from gcdis_ray.training.loop import train

pytestmark = pytest.mark.thorough
CASES = {
    "ddp": ({}, {}),
    "ddp_adamw": ({"optimizer": "adamw", "lr": 0.01}, {}),
    "ddp_four_parts": ({"micro_batches": 4}, {}),
    "ddp_bf16": ({"precision": "bf16"}, {}),
    "zero1": ({}, {"strategy": "deepspeed"}),
    "zero2": ({}, {"strategy": "deepspeed", "zero_stage": 2}),
    "zero1_adamw": ({"optimizer": "adamw", "lr": 0.01}, {"strategy": "deepspeed"}),
    "zero1_four_parts": ({"micro_batches": 4}, {"strategy": "deepspeed"}),
    "zero1_bf16": ({"precision": "bf16"}, {"strategy": "deepspeed"}),
}


def worker(rank: int, folder: str) -> None:
    results = {}
    for name, (training, compute) in CASES.items():
        if not can_be_had(compute):
            continue
        base = Path(folder, name)
        plan = toy_plan(base, **compute)
        checkpoints = FolderCheckpoints(base / "checkpoints")
        first = ToyTask(toy_config(**training), nan_at=5)  # both ranks stop, as one
        try:
            train(first, plan, checkpoints, torch.device("cpu"), lambda progress: None)
        except Exception as error:
            stopped = str(error)
        second = ToyTask(toy_config(**training))
        members = train(second, plan, checkpoints, torch.device("cpu"), lambda progress: None)
        paths = {member: record.path for member, (record,) in members.items()}
        results[name] = {"stopped": stopped, "digests": digests(members), "paths": paths}
    mixed = [torch.tensor([[rank, 7]], dtype=dtype) for dtype in (torch.bool, torch.bfloat16)]
    rows = [GroupExchange().rows([part]).int().tolist() for part in mixed]
    results["rows"] = [rows, list(parts_of_rank(4))]
    Path(folder, f"rank{rank}.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_in_two(worker, folder)
    return folder


def alone(folder: Path, name: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The same case, uninterrupted, in this process with DDP's settings."""
    plan = toy_plan(folder / name, checkpoint_every_s=86400)
    runtime = LocalRuntime(plan.compute)
    task = ToyTask(toy_config(**CASES[name][0]))
    members = runtime.fit(task, plan, lambda progress: None)
    return digests(members), load_file(folder / name / "toy/0" / members["toy"][0].path)


def result(two: Path, name: str) -> dict:
    return json.loads((two / "rank0.json").read_text())[name]


def weights(two: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(two / name / "toy/0" / result(two, name)["paths"]["toy"])


@pytest.mark.parametrize("name", ["ddp", "ddp_adamw", "ddp_bf16"])
def test_two_workers_interrupted_equal_one_uninterrupted_bit_by_bit(
    two: Path, tmp_path: Path, name: str
):
    assert "not finite at step 6" in result(two, name)["stopped"]
    assert result(two, name)["digests"] == alone(tmp_path, name)[0]


def test_more_parts_than_workers_equal_up_to_rounding(two: Path, tmp_path: Path):
    _, expected = alone(tmp_path, "ddp_four_parts")
    torch.testing.assert_close(weights(two, "ddp_four_parts"), expected, rtol=1e-4, atol=1e-6)


@needs_deepspeed
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("zero")])
def test_deepspeed_equals_ddp(two: Path, tmp_path: Path, name: str):
    """Interrupted and resumed as well: the optimiser's shards come back."""
    _, expected = alone(tmp_path, name)
    found = weights(two, name)
    if name == "zero1_adamw":
        # Adam divides by the size of the gradient. That of a bias before a BatchNorm is zero but
        # for rounding, so that its steps are rounding divided by rounding; the norm's mean follows.
        idle = [n for n in expected if n.endswith(("net.0.bias", "net.1.running_mean"))]
        assert len(idle) == 4  # the student's and the momentum encoder's
        for tensors in (found, expected):
            for key in idle:
                del tensors[key]
    rtol, atol = {"zero1_bf16": (5e-2, 2e-2), "zero1_adamw": (1e-3, 1e-3)}.get(name, (1e-4, 1e-6))
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_only_rank_0_writes_members(two: Path):
    other = json.loads((two / "rank1.json").read_text())
    there = [name for name, (_, compute) in CASES.items() if can_be_had(compute)]
    assert all(not other[name]["digests"] for name in there)
    assert {frozenset(result(two, name)["digests"]) for name in there} == {
        frozenset(result(two, "ddp")["digests"])
    }


def test_rows_come_in_order_of_parts_in_any_dtype(two: Path):
    for rank in (0, 1):
        rows, parts = json.loads((two / f"rank{rank}.json").read_text())["rows"]
        assert rows == [[[0, 1], [1, 1]], [[0, 7], [1, 7]]]
        assert parts == [2 * rank, 2 * rank + 1]


@needs_deepspeed
def test_zero_refuses_another_number_of_workers(two: Path):
    plan = toy_plan(two / "zero1", strategy="deepspeed")
    checkpoints = FolderCheckpoints(two / "zero1/checkpoints")
    LocalRuntime(plan.compute).fit(  # makes the process group of one that DeepSpeed wants
        ToyTask(toy_config(steps=1)), toy_plan(two / "one", strategy="deepspeed"), lambda p: None
    )
    with pytest.raises(ConfigError, match=r"2 worker(.|\n)*1 worker(.|\n)*compute\.workers"):
        train(ToyTask(toy_config()), plan, checkpoints, torch.device("cpu"), lambda p: None)
