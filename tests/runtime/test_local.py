from __future__ import annotations

from pathlib import Path

import pytest
from strategies import needs_deepspeed
from toy_shards import NUM_SHARDS, AddTask, Shards
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError, RuntimeUnavailable
from gcdis_ray.runtime.local import LocalRuntime


@pytest.fixture
def runtime() -> LocalRuntime:
    return LocalRuntime(ComputeConfig(runtime="local"))


def test_every_shard_once_and_one_open(tmp_path: Path, runtime: LocalRuntime):
    shards, opened = Shards(tmp_path / "data"), tmp_path / "opened"
    opened.mkdir()
    task = AddTask(opened=str(opened))
    everything = list(range(NUM_SHARDS))
    runtime.map_shards(
        task, [shards.table], shards.args, everything, shards.writer, shards.records.append
    )
    shards.check(everything)
    assert [file.read_text() for file in opened.iterdir()] == ["cpu"]


def test_only_the_missing_shards(tmp_path: Path, runtime: LocalRuntime):
    shards = Shards(tmp_path)
    runtime.map_shards(
        AddTask(), [shards.table], shards.args, [1, 4], shards.writer, shards.records.append
    )
    shards.check([1, 4])


def test_a_mistake_stops_the_step_and_keeps_what_is_done(tmp_path: Path, runtime: LocalRuntime):
    shards = Shards(tmp_path)
    with pytest.raises(DataError, match="photo is broken"):
        runtime.map_shards(
            AddTask(mistake_at=2),
            [shards.table],
            shards.args,
            list(range(NUM_SHARDS)),
            shards.writer,
            shards.records.append,
        )
    shards.check([0, 1])


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("deepspeed", marks=needs_deepspeed)])
def test_fit_with_every_strategy_and_a_second_time(tmp_path: Path, strategy: str):
    plan = toy_plan(tmp_path, strategy=strategy)
    runtime = LocalRuntime(plan.compute)
    first = runtime.fit(ToyTask(toy_config()), plan, lambda progress: None)
    again = runtime.fit(ToyTask(toy_config()), plan, lambda progress: None)
    assert digests(first) == digests(again)


def test_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plan = toy_plan(tmp_path, gpus_per_worker=1)
    with pytest.raises(RuntimeUnavailable, match=r"gpus_per_worker=0"):
        LocalRuntime(plan.compute).fit(ToyTask(toy_config()), plan, lambda progress: None)
    with pytest.raises(RuntimeUnavailable, match=r"gpus_per_worker=0"):
        add_on(plan.compute, tmp_path, wants_gpu=True)


def add_on(compute: ComputeConfig, folder: Path, wants_gpu: bool) -> list[str]:
    """The devices that a task was opened with."""
    shards, opened = Shards(folder / "data"), folder / "opened"
    opened.mkdir()
    task = AddTask(opened=str(opened), wants_gpu=wants_gpu)
    LocalRuntime(compute).map_shards(
        task, [shards.table], shards.args, [0], shards.writer, shards.records.append
    )
    return [file.read_text() for file in opened.iterdir()]


@pytest.mark.parametrize(
    ("wants_gpu", "gpus_per_worker", "device"),
    [(True, 1, "cuda"), (True, 0.5, "cuda"), (True, 0, "cpu"), (False, 1, "cpu")],
)
def test_a_task_is_opened_with_a_gpu_if_it_wants_one_and_workers_have_some(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wants_gpu: bool,
    gpus_per_worker: float,
    device: str,
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    compute = ComputeConfig(runtime="local", gpus_per_worker=gpus_per_worker)
    assert add_on(compute, tmp_path, wants_gpu) == [device]
