"""On a small Ray: what must hold when workers and drivers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from marked import LAST_WORDS_S, Mark, looks_into_proc
from ray_cluster import COMPUTE
from toy_notice import NoticedTask
from toy_shards import NUM_SHARDS, AddTask, HeldTask, Shards
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError, RuntimeUnavailable
from gcdis_ray.runtime import devices
from gcdis_ray.runtime.base import Runtime
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.meter import metering
from gcdis_ray.training.plan import Progress

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
TESTS = str(Path(__file__).resolve().parents[1])
EVERYTHING = list(range(NUM_SHARDS))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local runtime gives for the toy task."""
    plan = toy_plan(tmp_path_factory.mktemp("local"))
    return digests(LocalRuntime(plan.compute).fit(ToyTask(toy_config()), plan, lambda p: None))


def run(runtime: Runtime, task: AddTask, shards: Shards) -> None:
    runtime.map_shards(
        task, [shards.table], shards.args, EVERYTHING, shards.writer, shards.records.append
    )


def test_room_that_will_never_come_is_an_error_at_once(runtime: Runtime):
    from gcdis_ray.runtime.ray_session import RaySession

    with pytest.raises(RuntimeUnavailable, match=r"need 1 CPU, 2 GPU, here are 4 CPU, 1 GPU"):
        RaySession(ComputeConfig(**COMPUTE, gpus_per_worker=1))


def test_shard_that_always_kills_its_worker_is_named(runtime: Runtime, tmp_path: Path):
    shards = Shards(tmp_path)
    with pytest.raises(RuntimeUnavailable, match=r"shard 3 lost its worker 2 time"):
        run(runtime, AddTask(kill_file=str(tmp_path / "no" / "file")), shards)


def test_killed_worker_loses_and_doubles_no_shard(runtime: Runtime, tmp_path: Path):
    shards, killed, opened = Shards(tmp_path / "data"), tmp_path / "killed", tmp_path / "opened"
    opened.mkdir()
    run(runtime, AddTask(kill_file=str(killed), opened=str(opened)), shards)
    assert killed.exists()
    shards.check(EVERYTHING)
    assert len(list(opened.iterdir())) <= 3  # two actors and the replacement: once each


on_paper = pytest.mark.skipif(
    devices.has_unusable_gpu(), reason="this machine's GPU is a real one, and torch cannot use it"
)


@on_paper
@pytest.mark.parametrize(
    ("wants_gpu", "gpus", "held", "most"),
    [
        (True, {"gpus_per_data_worker": 0.5}, 0.5, 2),
        (False, {"gpus_per_worker": 1}, 0, 4),
        *(
            pytest.param(*other, marks=pytest.mark.thorough)
            for other in [
                (True, {"gpus_per_worker": 1}, 0.25, 4),
                (True, {"gpus_per_worker": 1, "gpus_per_data_worker": 1}, 1, 1),
                (True, {}, 0, 4),
            ]
        ),
    ],
)
def test_actors_of_networks_hold_their_share_of_a_gpu_and_others_none(
    runtime: Runtime,
    tmp_path: Path,
    wants_gpu: bool,
    gpus: dict[str, float],
    held: float,
    most: int,
):
    """Ray's GPU is on paper: the device is the CPU, or CUDA where the machine has some."""
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    shards, opened = Shards(tmp_path / "data"), tmp_path / "opened"
    opened.mkdir()
    compute = ComputeConfig.model_validate({**COMPUTE, **gpus, "workers": 1, "data_workers": 4})
    with_gpu = RayRuntime(compute)
    run(with_gpu, HeldTask(opened=str(opened), wants_gpu=wants_gpu), shards)
    with_gpu.close()  # the module's Ray goes on
    shards.check(EVERYTHING)
    found = [file.read_text() for file in opened.iterdir()]
    assert set(found) == {f"{devices.given_by_ray() if held else 'cpu'} {held:g}"}
    assert len(found) <= most


@on_paper
@pytest.mark.thorough
def test_training_on_gpus_on_paper_is_training_on_cores(
    runtime: Runtime, tmp_path: Path, expected: dict[str, str]
):
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    plan = toy_plan(tmp_path, **COMPUTE, gpus_per_worker=1, workers=1)
    with_gpu = RayRuntime(plan.compute)
    members = with_gpu.fit(ToyTask(toy_config()), plan, lambda progress: None)
    with_gpu.close()
    if devices.given_by_ray() == "cpu":
        assert digests(members) == expected


@pytest.mark.thorough
def test_workers_of_another_kind_than_was_told_are_refused(runtime: Runtime, tmp_path: Path):
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    other = "cpu" if devices.given_by_ray() == "cuda" else "cuda"
    mixed = RayRuntime(ComputeConfig(**COMPUTE, gpus_per_data_worker=1, data_workers=1))
    mixed._gpus = other
    with pytest.raises(RuntimeUnavailable, match=rf"means {other}, that of another"):
        run(mixed, AddTask(wants_gpu=True), Shards(tmp_path))
    mixed.close()


@pytest.mark.thorough
def test_an_actor_on_a_gpu_works_at_two_shards_at_a_time(runtime: Runtime, tmp_path: Path):
    """One computes, the other is read or written; a worker killed meanwhile loses no shard."""
    from gcdis_ray.runtime import ray_data

    shards, killed, opened = Shards(tmp_path / "data"), tmp_path / "killed", tmp_path / "opened"
    opened.mkdir()
    task = AddTask(kill_file=str(killed), opened=str(opened))
    here: Any = runtime
    ray_data.map_shards(
        ComputeConfig(**COMPUTE, data_workers=1), task, "cuda", [shards.table], shards.args,
        EVERYTHING, shards.writer, shards.records.append, print, here._board,
    )  # fmt: skip
    assert killed.exists()
    shards.check(EVERYTHING)
    assert {file.read_text() for file in opened.iterdir()} == {"cuda"}


def test_workers_bytes_are_counted_as_if_read_here(runtime: Runtime, tmp_path: Path):
    with metering() as here:
        run(LocalRuntime(ComputeConfig(runtime="local")), AddTask(), Shards(tmp_path / "local"))
    with metering() as there:
        run(runtime, AddTask(), Shards(tmp_path / "ray"))
    assert here.amounts() == there.amounts()
    assert here.read_bytes > 0


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
    # what was posted just before a death may be lost with the process
    assert 6 in {progress.done for progress in told if "queue" in progress.values} <= {3, 6}


@pytest.mark.thorough
def test_a_node_taken_away_with_notice_costs_no_step_and_is_no_failure(
    runtime: Runtime, tmp_path: Path, expected: dict[str, str]
):
    """A checkpoint is kept as soon as notice is given, long before one would be due; the run goes
    on from there with not a single failure allowed."""
    compute = {**COMPUTE, "max_failures": 0, "checkpoint_every_s": 86400}
    told = list[Progress]()
    task = NoticedTask(toy_config(), str(tmp_path / "noticed"), notice_at=3)
    members = runtime.fit(task, toy_plan(tmp_path, **compute), told.append)
    assert digests(members) == expected
    assert [progress.done for progress in told if progress.note == "resumed"] == [4]


@pytest.mark.thorough
def test_fit_on_s3_survives_a_worker_and_knows_when_it_is_finished(
    runtime: Runtime, tmp_path: Path, s3_endpoint: str, expected: dict[str, str]
):
    plan = toy_plan("s3://bucket/fit", s3_endpoint, **COMPUTE)
    told = list[Progress]()
    task = ToyTask(toy_config(), die_at=5, die_file=str(tmp_path / "died"), slow_s=0.3)
    assert digests(runtime.fit(task, plan, told.append)) == expected
    assert any(progress.note == "resumed" and progress.done > 0 for progress in told)

    # Another driver finds the training finished: no batch is made, or this one would fail.
    plan = toy_plan("s3://bucket/fit", s3_endpoint, attempt="attempt-2", **COMPUTE)
    assert digests(runtime.fit(ToyTask(toy_config(), fail_at=0), plan, told.append)) == expected


@pytest.mark.thorough
def test_mistake_in_training_ends_the_run_without_another_try(runtime: Runtime, tmp_path: Path):
    plan, told = toy_plan(tmp_path, **COMPUTE, workers=1), list[Progress]()
    with pytest.raises(DataError, match=r"photo 17: photo is broken") as caught:
        runtime.fit(ToyTask(toy_config(), fail_at=2), plan, told.append)
    assert type(caught.value) is DataError
    assert not any("starting again" in progress.note for progress in told)


DRIVER = """
import sys
from pathlib import Path
from toy_training import ToyTask, digests, toy_config, toy_plan
from gcdis_ray.runtime.ray_runtime import RayRuntime
from strategies import HAS_DEEPSPEED
strategy = "deepspeed" if HAS_DEEPSPEED else "ddp"
compute = dict(strategy=strategy, runtime="ray", num_cpus=4, object_store_mb=200)
plan = toy_plan(Path(sys.argv[1]), attempt=sys.argv[3], **compute)
runtime = RayRuntime(plan.compute)
print("UP", flush=True)
try:
    task = ToyTask(toy_config(steps=12), slow_s=float(sys.argv[2]))
    members = runtime.fit(task, plan, lambda p: print("AT", p.done, p.note, flush=True))
    print("HISTORY", digests(members)["history"], flush=True)
finally:
    runtime.close()
"""


class Driver:
    """A program of its own with a Ray of its own; every process it starts carries a mark."""

    def __init__(self, folder: Path, slow_s: float, attempt: str = "attempt-1") -> None:
        self.mark = Mark(folder.name)
        environment = {k: v for k, v in os.environ.items() if k not in RAYS_OWN}
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder), str(slow_s), attempt],
            env={**environment, **self.mark.variable, "PYTHONPATH": TESTS},
            stdout=subprocess.PIPE,
            text=True,
            # A shell that runs tests in the background has its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def read_until(self, prefix: str, at_least: int = 0) -> list[str]:
        """Lines up to the one that starts with ``prefix`` (and then a number not below)."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line.strip())
            words = line.split()
            if words[:1] == [prefix] and (prefix != "AT" or int(words[1]) >= at_least):
                return lines
        raise AssertionError(f"ended without {prefix}: {lines}")


RAYS_OWN = {name for name in os.environ if name.startswith("RAY_") and name != "RAY_AUTH_MODE"}


@pytest.mark.thorough
@looks_into_proc
def test_driver_killed_in_training_resumes(tmp_path: Path):
    first = Driver(tmp_path, slow_s=0.5)
    first.read_until("AT", at_least=4)
    first.process.kill()
    second = Driver(tmp_path, slow_s=0.0, attempt="attempt-2")
    lines = second.read_until("HISTORY")
    assert second.process.wait(30) == 0
    resumed = [line for line in lines if line.endswith("resumed")]
    assert len(resumed) == 1
    assert int(resumed[0].split()[1]) >= 3
    runs = {folder.parent.name for folder in (tmp_path / "toy/0/train").glob("*/step-*")}
    assert runs == {"toy-0-attempt-1", "toy-0-attempt-2"}
    plan = toy_plan(tmp_path / "whole", strategy="ddp", checkpoint_every_s=86400)
    task = ToyTask(toy_config(steps=12))
    whole = LocalRuntime(plan.compute).fit(task, plan, lambda progress: None)
    history = (tmp_path / "toy/0" / "attempt-2" / "history").glob("*.parquet")
    assert_equal_curves(next(history), tmp_path / "whole/toy/0" / whole["history"][0].path)
    assert second.mark.left_over(10) == []
    assert first.mark.left_over(LAST_WORDS_S) == []


def assert_equal_curves(found: Path, expected: Path) -> None:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path).to_pydict() for path in (found, expected)]
    assert tables[0]["step"] == tables[1]["step"]
    assert tables[0]["name"] == tables[1]["name"]
    assert tables[0]["value"] == pytest.approx(tables[1]["value"], rel=1e-4, abs=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@looks_into_proc
def test_driver_told_to_stop_leaves_nothing_behind(tmp_path: Path, number: signal.Signals):
    program = Driver(tmp_path, slow_s=0.5)
    program.read_until("AT")
    program.process.send_signal(number)
    assert program.process.wait(120) != 0
    assert program.mark.left_over(10) == []
