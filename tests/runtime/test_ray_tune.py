"""Trials and tasks on a small Ray: what becomes of them when they fail, die or are ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import COMPUTE
from toy_training import ToyTask, digests, toy_config, toy_plan
from toy_trials import ToyTrial, ToyTrials, square

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError, RuntimeUnavailable, Stopped, StorageError
from gcdis_ray.runtime.base import Runtime
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.training.plan import Progress

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


def run(
    folder: Path,
    trials: ToyTrials,
    concurrent: int = 2,
    scratch: str | None = None,
    endpoint: str | None = None,
) -> None:
    from gcdis_ray.runtime.ray_tune import run_trials

    scratch = scratch or str(folder / "tune")
    for _ in run_trials(
        ComputeConfig(**COMPUTE), ToyTrial(str(folder)), trials, concurrent=concurrent,
        scratch_uri=scratch, scratch_endpoint=endpoint,
    ):  # fmt: skip
        pass


def test_every_end_a_trial_can_take(runtime: Runtime, tmp_path: Path):
    kinds = ["well", "mistake", "crash", "dies", "endless", "well", "well"]
    trials = ToyTrials([{"kind": kind, "value": n} for n, kind in enumerate(kinds)])
    run(tmp_path, trials)
    assert trials.errors == {
        0: None,
        1: "photo 17: photo 17 is broken",
        2: "ZeroDivisionError: a fault of the code",
        3: None,  # its process died once and was started again
        4: None,
        5: None,
        6: None,
    }
    done = {n: o["objective"] for n, o in trials.outcomes.items() if o}
    assert done == {0: 0.0, 3: 3.0, 5: 5.0, 6: 6.0}
    assert trials.outcomes[0]["nested"] == {"list": [1, None]}
    assert trials.curves[0] == [(1, 0.0), (2, 0.0), (3, 0.0)]
    assert (tmp_path / "dies-3.died").exists()
    assert max(o["at_a_time"] for o in trials.outcomes.values() if o) <= 2
    assert not list(tmp_path.glob("*.running"))  # the endless one was told to end, and did


@pytest.mark.thorough
def test_a_record_that_cannot_be_written_ends_the_sweep(runtime: Runtime, tmp_path: Path):
    trials = ToyTrials([{"kind": "well", "value": n} for n in range(3)], fail_at=0)
    with pytest.raises(DataError, match="the record cannot be written"):
        run(tmp_path, trials, concurrent=1)


@pytest.mark.thorough
def test_an_error_of_the_surroundings_ends_the_sweep(runtime: Runtime, tmp_path: Path):
    """The trial that met it is not put on record."""
    trials = ToyTrials([{"kind": kind, "value": 0} for kind in ("well", "outage", "well")])
    with pytest.raises(StorageError, match="S3 cannot be reached"):
        run(tmp_path, trials, concurrent=1)
    assert trials.errors == {0: None}


def test_scratch_can_be_on_s3(runtime: Runtime, tmp_path: Path, s3_endpoint: str):
    trials = ToyTrials([{"kind": "well", "value": 1}])
    run(tmp_path, trials, scratch="s3://bucket/tune", endpoint=s3_endpoint)
    assert trials.outcomes[0]["objective"] == 1.0


def test_room_for_trials_at_their_busiest(runtime: Runtime):
    from gcdis_ray.runtime.ray_tune import room

    def compute(**fields: Any) -> ComputeConfig:
        return ComputeConfig(**{**COMPUTE, **fields})

    assert room(compute(workers=1, data_workers=1)) == 3  # 1.01 of 4 each
    assert room(compute(workers=2, data_workers=2)) == 1
    with pytest.raises(
        RuntimeUnavailable, match=r"4\.01 CPU at its busiest, the cluster has 4 CPU"
    ):
        room(compute(workers=2, data_workers=4))
    with pytest.raises(RuntimeUnavailable, match="GPU"):
        room(compute(gpus_per_worker=1))


def test_tasks_give_every_result_once(runtime: Runtime):
    from gcdis_ray.runtime.ray_tune import run_tasks

    calls = [("ab"[n % 2], n) for n in range(23)]
    found = dict(run_tasks(square, {"a": 1, "b": 2}, calls, batch=4))
    assert {n: result[:3] for n, result in found.items()} == {
        n: (1 + n % 2, n, n * n) for n in range(23)
    }
    assert os.getpid() not in {result[3] for result in found.values()}


@pytest.mark.thorough
def test_training_told_to_stop_frees_its_places_and_can_go_on(runtime: Runtime, tmp_path: Path):
    import ray

    def stop_at_4(progress: Progress) -> None:
        if progress.done >= 4:
            raise Stopped("enough")

    plan = toy_plan(tmp_path / "ray", **COMPUTE)
    with pytest.raises(Stopped, match="enough"):
        runtime.fit(ToyTask(toy_config(), slow_s=0.7), plan, stop_at_4)
    deadline = time.monotonic() + 60  # what is free is known a moment later
    while ray.available_resources().get("CPU") != 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 4
    told = list[Progress]()
    members = runtime.fit(ToyTask(toy_config()), plan, told.append)
    assert any(progress.note == "resumed" and progress.done > 0 for progress in told)
    local = toy_plan(tmp_path / "local")
    assert digests(members) == digests(
        LocalRuntime(local.compute).fit(ToyTask(toy_config()), local, lambda p: None)
    )
