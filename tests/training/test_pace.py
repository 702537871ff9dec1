"""How fast a training goes is told on the way, ends in the manifest, and is in no member."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_training import ToyTask, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.run.attempt import Attempt, finished_units
from gcdis_ray.run.pipeline import Event
from gcdis_ray.run.progress import Reporter
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.schemas import HISTORY
from gcdis_ray.store.storage import LocalStorage
from gcdis_ray.training.pace import ROWS, Course, Gpu, Pace, PaceMeter
from gcdis_ray.training.plan import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waiting_is_what_batches_take_and_no_more():
    clock = Clock()
    meter = PaceMeter(64, torch.device("cpu"), clock)

    def batches():
        for number in range(4):
            clock.now += 1.0
            yield number

    clock.now = 100.0  # what came before the first step does not count
    assert meter.take() is None
    for number in meter.timed(batches()):
        clock.now += 3.0
        if number == 1:
            assert meter.take() == Pace(2, 128, 8.0, 2.0)
    left = meter.take()
    assert left == Pace(2, 128, 8.0, 2.0)
    assert (left.step_s, left.samples_per_s, left.data_wait) == (4.0, 16.0, 0.25)
    assert meter.take() is None


def test_paces_add_up():
    both = Pace(2, 20, 4.0, 1.0, 100, 0.5) + Pace(6, 60, 12.0, 0.0, 90, 0.9)
    assert both == Pace(8, 80, 16.0, 1.0, 100, pytest.approx(0.8))
    assert (both + Pace(1, 10, 4.0, 0.0, 0, None)).gpu_use == pytest.approx(0.8)
    assert (Pace(1, 1, 1, 0) + Pace(1, 1, 1, 0)).gpu_use is None


def test_in_words():
    assert str(Pace(3, 300, 2.0, 0.5)) == "150 samples/s, waits 25 %"
    assert str(Pace(3, 3000, 2.0, 0.0)) == "1,500 samples/s, waits 0 %"
    assert str(Pace(3, 3, 2.0, 0.0)) == "1.5 samples/s, waits 0 %"
    assert str(Pace(3, 300, 2.0, 0.5, 31_200_000_000)).endswith("25 %, GPU 31.2 GB")
    assert str(Pace(3, 300, 2.0, 0.5, 31_200_000_000, 0.97)).endswith("GPU 31.2 GB, 97 % busy")


def test_a_course_is_bounded_and_loses_nothing():
    course, total = Course(), 5 * ROWS + 17
    for step in range(1, total + 1):
        course.add(step, Pace(1, 10, 2.0, 1.0, step, 0.5))
    columns = course.columns()
    assert ROWS / 2 <= len(columns["step"]) <= ROWS
    assert columns["step"][-1] == total
    assert set(columns["samples_per_s"]) == {5.0}
    assert set(columns["data_wait"]) == {0.5}
    assert columns["gpu_memory_bytes"][-1] == total
    assert Course().columns() == {}


def test_a_gpu_that_does_not_tell_its_use_is_asked_once(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def utilization(device):
        asked.append(device)
        raise ModuleNotFoundError("pynvml")

    fake = SimpleNamespace(
        reset_peak_memory_stats=lambda device: None,
        max_memory_reserved=lambda device: 7,
        utilization=utilization,
    )
    monkeypatch.setattr(torch, "cuda", fake)
    meter = PaceMeter(1, torch.device("cuda"))
    for _ in meter.timed(range(2)):
        pace = meter.take()
        assert pace is not None
        assert (pace.gpu_memory_bytes, pace.gpu_use) == (7, None)
    assert len(asked) == 1
    monkeypatch.setattr(fake, "utilization", lambda device: 40)
    assert Gpu(torch.device("cuda")).use() == 0.4


def test_a_training_tells_it_and_its_unit_keeps_it(tmp_path: Path):
    config, told = toy_config(), list[Progress]()
    storage = LocalStorage(tmp_path)
    schemas = {"history": HISTORY}
    compute = ComputeConfig(runtime="local", workers=1, checkpoint_every_s=0)

    def work(name: str) -> StageWork:
        attempt = Attempt(storage, "toy/0", name, schemas)
        return StageWork(attempt, lambda: LocalRuntime(compute), compute, 0, told.append)

    first = work("attempt-1")
    first.fit(ToyTask(config))
    paces = [progress.pace for progress in told if progress.pace]
    assert sum(pace.steps for pace in paces) == config.steps
    assert sum(pace.samples for pace in paces) == config.steps * config.batch_size
    assert {"total", "fit", "lr"} <= set(told[-1].losses)
    assert first.pace["step"][-1] == config.steps
    assert set(first.pace) == {"step", "samples_per_s", "data_wait"}
    again = work("attempt-2")
    again.fit(ToyTask(config, fail_at=0))  # it is finished: nothing is trained
    assert again.pace == first.pace
    assert finished_units(storage, "toy/0")["fit/toy"].pace == first.pace
    assert "pace" not in again.files


def test_it_is_in_the_live_line_over_the_time_since_the_last_one(tmp_path: Path):
    clock, out = Clock(), io.StringIO()
    reporter = Reporter(out, clock)
    reporter(Event("discover", "start", reason="never run"))
    for done in (1, 2, 3):
        clock.now += 20.0 if done == 3 else 1.0
        pace = Pace(1, 100, 1.0 if done < 3 else 2.0, 0.0)
        progress = Progress(done, 4, "steps", "loss 1.000", pace=pace)
        reporter(Event("discover", "progress", progress=progress))
    line = out.getvalue().splitlines()[-1]
    assert "3/4 steps" in line
    assert "75 samples/s, waits 0 %  loss 1.000" in line


def test_a_slow_training_and_a_fast_one_leave_the_same_members(tmp_path: Path):
    digests = []
    for name, slow_s in (("fast", 0.0), ("slow", 0.02)):
        plan = toy_plan(tmp_path / name)
        told = list[Progress]()
        members = LocalRuntime(plan.compute).fit(
            ToyTask(toy_config(), slow_s=slow_s), plan, told.append
        )
        digests.append({member: records[0].sha256 for member, records in members.items()})
    assert digests[0] == digests[1]
