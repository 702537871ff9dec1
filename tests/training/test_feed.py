"""Batches made ahead: the same from any number of threads, in order, honest about errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from toy_discovery import MIXED, make
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.meter import count, metering
from gcdis_ray.training.feed import STEPS_AHEAD, Feed, each_tensor, to_device

CPU = torch.device("cpu")


def feed(make_part: Any, threads: int, parts: int = 2) -> Feed:
    return Feed(make_part, range(parts), ComputeConfig(decode_threads=threads), CPU)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parts_come_in_order_however_long_each_takes(threads: int):
    def part(step: int, number: int) -> tuple[int, int]:
        time.sleep(0.001 * (7 * step + 3 * number) % 5)
        return step, number

    found = list(feed(part, threads).steps(2, 12))
    assert found == [(step, [(step, 0), (step, 1)]) for step in range(2, 12)]
    assert list(feed(part, threads).steps(3, 3)) == []


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, STEPS_AHEAD), (8, STEPS_AHEAD)])
def test_so_many_steps_are_made_ahead_and_no_more(threads: int, ahead: int):
    made: list[int] = []
    for step, _ in feed(lambda step, _: made.append(step), threads, parts=1).steps(0, 20):
        limit = min(step + 1 + ahead, 20)
        while len(made) < limit:  # it will be made without anybody asking
            time.sleep(0.001)
        time.sleep(0.002)
        assert sorted(made) == list(range(limit))


def test_several_threads_work_at_the_same_time():
    both = threading.Barrier(2)  # nobody passes alone
    list(feed(lambda step, part: both.wait(30), 2).steps(0, 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_part_raises_is_raised_at_its_step_and_nothing_is_made_after(threads: int):
    made: list[int] = []

    def part(step: int, number: int) -> int:
        made.append(step)
        if step == 4:
            raise DataError("photo is broken")
        return step

    steps = feed(part, threads).steps(0, 1000)
    assert [next(steps)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="photo is broken"):
        next(steps)
    assert max(made) <= 4 + STEPS_AHEAD


def test_who_stops_early_waits_for_nothing_that_has_not_begun():
    made: list[int] = []
    steps = feed(lambda step, part: made.append(step), 2).steps(0, 1000)
    next(steps)
    steps.close()
    assert max(made) <= 1 + STEPS_AHEAD
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_what_threads_read_counts_as_read_here():
    with metering() as meter:
        list(feed(lambda step, part: count(read_bytes=10), 4).steps(0, 5))
    assert meter.read_bytes == 100


def test_a_training_gives_the_same_bytes_with_any_number_of_threads(tmp_path: Path):
    found = []
    for threads in (1, 2, 5):
        plan = toy_plan(tmp_path / str(threads), decode_threads=threads, checkpoint_every_s=86400)
        task = ToyTask(toy_config(micro_batches=4))
        found.append(digests(LocalRuntime(plan.compute).fit(task, plan, lambda progress: None)))
    assert found[0] == found[1] == found[2]


def test_crops_of_every_step_are_the_same_from_any_number_of_threads():
    task = make(MIXED)
    task.setup(CPU)
    alone, together = (
        [parts for _, parts in feed(task.batch, threads).steps(0, 6)] for threads in (1, 4)
    )
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.keys() == b.keys()
            for name, value in a.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[name])), name


class Pair(NamedTuple):
    first: torch.Tensor
    second: int


def test_tensors_are_found_and_all_else_stays():
    one = torch.ones(2)
    batch = {"a": [one, "text"], "b": (one, None), "c": Pair(one, 3), "d": 1.5}
    found = each_tensor(batch, lambda tensor: tensor + 1)
    assert type(found["c"]) is Pair
    assert type(found["b"]) is tuple
    assert (found["a"][1], found["b"][1], found["c"].second, found["d"]) == ("text", None, 3, 1.5)
    for tensor in (found["a"][0], found["b"][0], found["c"].first):
        assert torch.equal(tensor, one + 1)
    assert to_device(batch, torch.device("meta"))["c"].first.is_meta
