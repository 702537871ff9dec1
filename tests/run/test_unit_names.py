"""Names of units: what was made by different weights, devices or precisions never meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.unit_names import files_of, group_name
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.devices import Kind
from gcdis_ray.runtime.local import LocalRuntime, run_shard
from gcdis_ray.store.artifacts import FileRecord, TensorFile
from gcdis_ray.store.schemas import HISTORY
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.plan import FitPlan

SHARDS = 4


@dataclass(frozen=True)
class Infers:
    """Shard task without tables: each shard tells the weights that made it.

    Args:
        stop_at: shard at which its process ends, as if killed.
    """

    weights: TensorFile
    skip: Sequence[int] = ()
    precision: str = "fp32"
    wants_gpu: bool = True
    others: Mapping[str, TensorFile] = field(default_factory=dict)

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        value = float(self.weights.load()["value"])

        def infer(index: int) -> Mapping[str, pa.Table]:
            if index in self.skip:
                raise KeyboardInterrupt
            row = {"step": index, "name": device, "value": value}
            return {"history": pa.Table.from_pylist([row], schema=HISTORY)}

        return infer


class OnPaper(LocalRuntime):
    """Says that it has a GPU; its tasks do not look. Its trainings end where they are told to."""

    def __init__(self, compute: ComputeConfig, device: Kind) -> None:
        super().__init__(compute)
        self.device, self.computed, self.trains_to = device, list[int](), 0.0

    def device_of(self, task: Any, waiting: Any = None) -> Kind:
        return self.device

    def map_shards(self, task, tables, args, indices, writer, done, waiting=print) -> None:
        run = task.open(self.device)
        for index in indices:
            done(run_shard(run, tables, args, index, writer))
            self.computed.append(index)

    def fit(self, task: Any, plan: FitPlan, progress: Any) -> dict[str, list[FileRecord]]:
        tensors = {"value": torch.tensor(self.trains_to)}
        return {"encoder": [plan.writer.tensors("encoder", tensors)]}


class Driver:
    """One try of a stage that trains and infers."""

    def __init__(self, folder: Path, name: str, device: Kind = "cuda") -> None:
        compute = ComputeConfig(runtime="local", gpus_per_worker=int(device == "cuda"))
        attempt = Attempt(open_storage(str(folder)), "toy/0", f"attempt-{name}", SCHEMAS)
        self.runtime = OnPaper(compute, device)
        self.work = StageWork(attempt, lambda: self.runtime, compute, 0, lambda progress: None)

    def train(self, value: float) -> TensorFile:
        """Weights of this training, or those that an earlier try has finished."""
        self.runtime.trains_to = value
        task: Any = SimpleNamespace(member="encoder", config=SimpleNamespace(steps=1))
        self.work.fit(task)
        return self.work.tensor_file("encoder")

    def infer(self, weights: TensorFile, skip: Sequence[int] = (), **options: Any) -> list[float]:
        """Which weights each shard was made by."""
        task = Infers(weights, skip, **options)
        found = self.work.map_shards(task, [], gives=["history"], args=[{}] * SHARDS)["history"]
        return found.read()["value"].to_pylist()


def test_two_drivers_with_different_weights_are_never_mixed(tmp_path: Path):
    """Two are alive under one key, train, and each infers some shards before both are killed. A
    third takes the weights of one of them, and what those made; the rest it makes itself."""
    first, second = Driver(tmp_path, "a"), Driver(tmp_path, "b")
    for driver, value, skip in ((first, 1.0, [2, 3]), (second, 2.0, [3])):
        with pytest.raises(KeyboardInterrupt):
            driver.infer(driver.train(value), skip)
    assert (first.runtime.computed, second.runtime.computed) == ([0, 1], [0, 1, 2])
    third = Driver(tmp_path, "c")
    assert third.infer(third.train(3.0)) == [1.0] * SHARDS
    assert third.runtime.computed == [2, 3]
    assert third.work.adopted == 3  # the training, too


def test_without_weights_in_the_names_they_would_mix(tmp_path: Path, monkeypatch):
    """The same story, told with names as they were: what the test above is good for."""
    monkeypatch.setattr("gcdis_ray.run.work.group_name", lambda gives, *rest: "+".join(gives))
    first, second = Driver(tmp_path, "a"), Driver(tmp_path, "b")
    for driver, value, skip in ((first, 1.0, [2, 3]), (second, 2.0, [3])):
        with pytest.raises(KeyboardInterrupt):
            driver.infer(driver.train(value), skip)
    third = Driver(tmp_path, "c")
    assert third.infer(third.train(3.0)) == [1.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("device", "options", "adopted"),
    [
        ("cpu", {}, 2),
        ("cuda", {}, 0),
        ("cpu", {"precision": "bf16"}, 2),  # in fp32 all the same
        ("cpu", {"others": "other"}, 0),
    ],
)
def test_kinds_of_devices_never_meet(
    tmp_path: Path, device: Kind, options: dict[str, Any], adopted: int
):
    killed = Driver(tmp_path, "a", "cpu")
    weights = killed.train(1.0)
    with pytest.raises(KeyboardInterrupt):
        killed.infer(weights, [2])
    if "others" in options:
        record = killed.work.attempt.tensors("other", {"value": torch.tensor(5.0)})
        options = {"others": {"other": TensorFile(record, weights.opener)}}
    again = Driver(tmp_path, "b", device)
    assert again.infer(again.train(1.0), **options) == [1.0] * SHARDS
    assert again.work.adopted == 1 + adopted  # the training, too
    assert set(again.work.table("history").read()["name"].to_pylist()) == {device}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_units_that_are_all_there_need_no_gpu_to_be_taken_over(tmp_path: Path, device: Kind):
    first = Driver(tmp_path, "a")
    first.runtime.device = device  # a GPU may be there on paper only
    weights = first.train(1.0)
    first.infer(weights)
    again = Driver(tmp_path, "b")
    again.work._runtime = lambda: pytest.fail("a runtime is asked for")
    assert again.infer(again.train(1.0)) == [1.0] * SHARDS
    assert again.work.adopted == 1 + SHARDS


def test_names_tell_device_and_precision(tmp_path: Path):
    weights = Driver(tmp_path, "a").train(1.0)
    names = [
        group_name(["a", "b"], Infers(weights, precision=precision), [], device)
        for device, precision in (("cpu", "bf16"), ("cuda", "bf16"), ("cuda", "fp32"))
    ]
    assert [name.rsplit(".", 1)[0] for name in names] == [
        "a+b.cpu-fp32", "a+b.cuda-bf16", "a+b.cuda-fp32",
    ]  # fmt: skip
    assert len({name.rsplit(".", 1)[1] for name in names}) == 1
    plain = group_name(["a"], Infers(weights, wants_gpu=False), [], "cpu")
    assert plain.count(".") == 1


def test_files_are_found_wherever_a_task_keeps_them(tmp_path: Path):
    weights = Driver(tmp_path, "a").train(1.0)
    assert list(files_of({"a": [(weights,)], "b": 3, "c": TensorFile})) == [weights.record]


def test_a_stage_on_cores_starts_no_runtime_to_name_its_units(tmp_path: Path):
    driver = Driver(tmp_path, "a", "cpu")
    weights = driver.train(1.0)
    driver.infer(weights)
    again = Driver(tmp_path, "b", "cpu")
    again.work._runtime = None  # pyright: ignore[reportAttributeAccessIssue]
    assert again.infer(again.train(1.0)) == [1.0] * SHARDS
