from __future__ import annotations

import torch

from gcdis_ray.training.readings import Readings


def put(readings: Readings, step: int) -> None:
    readings.put(step, ["due", "total"], torch.tensor([[0.0, step], [1.0, step + 0.5]]))


def test_on_a_cpu_a_step_is_read_at_once():
    readings = Readings(torch.device("cpu"))
    put(readings, 4)
    (reading,) = readings.take()
    assert (reading.step, reading.names) == (4, ("due", "total"))
    assert reading.values == ((0.0, 4.0), (1.0, 4.5))
    assert list(readings.take()) == []


def test_a_step_is_read_when_a_later_one_is_enqueued_and_all_on_demand():
    readings, seen = Readings(torch.device("cpu"), lag=1), []
    for step in range(4):
        put(readings, step)
        seen.append([reading.step for reading in readings.take()])
    assert seen == [[], [0], [1], [2]]
    assert [reading.step for reading in readings.take(everything=True)] == [3]
