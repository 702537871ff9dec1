from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from strategies import needs_deepspeed
from toy_shards import NUM_SHARDS, AddTask, Shards
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError, RuntimeUnavailable
from gcdis_ray.runtime import devices
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.meter import metering


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
    ("wants_gpu", "gpus", "device"),
    [
        (True, {"gpus_per_worker": 1}, "cuda"),
        (True, {"gpus_per_data_worker": 0.5}, "cuda"),
        (True, {"gpus_per_worker": 1, "gpus_per_data_worker": 0}, "cpu"),
        (True, {}, "cpu"),
        (False, {"gpus_per_worker": 1}, "cpu"),
    ],
)
def test_a_task_is_opened_with_a_gpu_if_it_wants_one_and_data_steps_have_some(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wants_gpu: bool,
    gpus: dict[str, float],
    device: str,
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    compute = ComputeConfig.model_validate({"runtime": "local", **gpus})
    assert add_on(compute, tmp_path, wants_gpu) == [device]


def test_while_a_gpu_computes_a_shard_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Reads and computations meet: shard 0 is computed once shard 1 has been read. Nothing else
    computes meanwhile, and no shard is lost."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    shards, computing = Shards(tmp_path), list[int]()
    read, original = [Event() for _ in range(NUM_SHARDS)], type(shards.table).shard

    def note(table: Table, index: int, columns=None):
        found = original(table, index, columns)
        read[index].set()
        return found

    class Waits(AddTask):
        def _add(self, index: int, *args, **kwargs):
            computing.append(index)
            assert len(computing) == 1
            assert index > 0 or read[1].wait(30)
            found = super()._add(index, *args, **kwargs)
            computing.remove(index)
            return found

    monkeypatch.setattr(type(shards.table), "shard", note)
    with metering() as meter:
        LocalRuntime(ComputeConfig(runtime="local", gpus_per_worker=1)).map_shards(
            Waits(wants_gpu=True),
            [shards.table],
            shards.args,
            list(range(NUM_SHARDS)),
            shards.writer,
            shards.records.append,
        )
    shards.check(list(range(NUM_SHARDS)))
    assert meter.read_bytes == sum(record.bytes for record in shards.table.shards)


def test_what_a_gpu_of_ray_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "_DRIVERS", ("/no/such/device",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices.given_by_ray() == "cpu"  # on paper
    monkeypatch.setattr(devices, "_DRIVERS", ("/dev/nul[l]",))
    with pytest.raises(RuntimeUnavailable, match="has a GPU that torch cannot use"):
        devices.given_by_ray()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert devices.given_by_ray() == "cuda"


def test_apples_gpu_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(devices, "is_apples", lambda: True)
    with pytest.raises(RuntimeUnavailable, match=r"Apple's GPU is not used(.|\n)*worker=0"):
        devices.of_this_machine()
