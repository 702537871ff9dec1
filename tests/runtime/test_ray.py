"""One small Ray for the module: what must hold when workers and drivers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_shards import NUM_SHARDS, AddTask, Shards
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError
from gcdis_ray.runtime.base import Progress, Runtime
from gcdis_ray.runtime.local import LocalRuntime

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
TESTS = str(Path(__file__).resolve().parents[1])
COMPUTE = {"runtime": "ray", "num_cpus": 4, "object_store_mb": 200, "max_failures": 1}
EVERYTHING = list(range(NUM_SHARDS))


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)  # workers unpickle the toy tasks
        patch.delenv("RAY_ADDRESS", raising=False)
        runtime = RayRuntime(ComputeConfig(**COMPUTE))
        yield runtime
        runtime.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local runtime gives for the toy task."""
    plan = toy_plan(tmp_path_factory.mktemp("local"))
    return digests(LocalRuntime(plan.compute).fit(ToyTask(toy_config()), plan, lambda p: None))


def run(runtime: Runtime, task: AddTask, shards: Shards) -> None:
    runtime.map_shards(
        task, [shards.table], shards.args, EVERYTHING, shards.writer, shards.records.append
    )


def test_killed_worker_loses_and_doubles_no_shard(runtime: Runtime, tmp_path: Path):
    shards, killed, opened = Shards(tmp_path / "data"), tmp_path / "killed", tmp_path / "opened"
    opened.mkdir()
    run(runtime, AddTask(kill_file=str(killed), opened=str(opened)), shards)
    assert killed.exists()
    shards.check(EVERYTHING)
    assert len(list(opened.iterdir())) <= 3  # two actors and the replacement: once each


def test_mistake_arrives_as_it_is(runtime: Runtime, tmp_path: Path):
    with pytest.raises(DataError, match=r"photo 17: photo is broken(.|\n)*replace it") as caught:
        run(runtime, AddTask(mistake_at=2), Shards(tmp_path))
    assert type(caught.value) is DataError


def test_fault_of_the_code_arrives_with_its_traceback(runtime: Runtime, tmp_path: Path):
    with pytest.raises(Exception, match=r"toy_shards\.py(.|\n)*a fault of the code"):
        run(runtime, AddTask(crash_at=2), Shards(tmp_path))


def test_fit_survives_a_worker_and_equals_the_local_runtime(
    runtime: Runtime, tmp_path: Path, expected: dict[str, str]
):
    plan = toy_plan(tmp_path, **COMPUTE)
    died, told = tmp_path / "died", list[Progress]()
    task = ToyTask(toy_config(), die_at=5, die_file=str(died), slow_s=0.3)
    members = runtime.fit(task, plan, told.append)
    assert died.exists()
    assert digests(members) == expected
    assert any("starting again" in progress.note for progress in told)
    assert any(progress.note == "resumed" and progress.done > 0 for progress in told)
    assert told[-1].done == told[-1].total == 8

    # The same run again finds itself finished, under DeepSpeed's name of mistakes too.
    plan = toy_plan(tmp_path, **COMPUTE)
    assert digests(runtime.fit(ToyTask(toy_config(), fail_at=0), plan, told.append)) == expected


def test_mistake_in_training_ends_the_run_without_another_try(runtime: Runtime, tmp_path: Path):
    plan, told = toy_plan(tmp_path, **COMPUTE), list[Progress]()
    with pytest.raises(DataError, match=r"photo 17: photo is broken") as caught:
        runtime.fit(ToyTask(toy_config(), fail_at=2), plan, told.append)
    assert type(caught.value) is DataError
    assert not any("starting again" in progress.note for progress in told)


DRIVER = """
import sys
from pathlib import Path
from toy_training import ToyTask, digests, toy_config, toy_plan
from gcdis_ray.runtime.ray_runtime import RayRuntime
plan = toy_plan(Path(sys.argv[1]), strategy="deepspeed", runtime="ray", num_cpus=4, object_store_mb=200)
runtime = RayRuntime(plan.compute)
try:
    task = ToyTask(toy_config(), slow_s=float(sys.argv[2]))
    members = runtime.fit(task, plan, lambda p: print("AT", p.done, p.note, flush=True))
    print("WEIGHTS", digests(members)["history"], flush=True)
finally:
    runtime.close()
"""


def driver(folder: Path, slow_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(slow_s)],
        env={**os.environ, "PYTHONPATH": TESTS},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
