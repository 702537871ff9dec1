from __future__ import annotations

import math

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from gcdis_ray.methods.gcdis.headness import HeadnessTable, headness


def test_headness_against_a_loop_without_own_keys():
    torch.manual_seed(0)
    anchors = F.normalize(torch.randn(4, 5), dim=1)
    keys = F.normalize(torch.randn(30, 5), dim=1)
    ids, key_ids = torch.arange(4), torch.arange(30) % 7
    ours = headness(anchors @ keys.T, ids[:, None] != key_ids, 0.1)
    for i in range(4):
        weights = sorted(
            (math.exp(float(anchors[i] @ keys[j])) for j in range(30) if key_ids[j] != i),
            reverse=True,
        )
        assert ours[i].item() == pytest.approx(sum(weights[:3]) / sum(weights), rel=1e-5)


def test_headness_without_foreign_keys_is_zero():
    one, own = torch.ones(1, 1), torch.tensor([[False]])
    assert headness(one, own, 0.5).tolist() == [0.0]
    assert headness(one[:, :0], own[:, :0], 0.5).tolist() == [0.0]


def test_crowded_instances_have_more_headness():
    crowd, lone = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    keys, ids = torch.cat([crowd.expand(10, 2), -crowd.expand(90, 2)]), torch.arange(100)
    anchors = torch.cat([crowd, lone])
    foreign = torch.tensor([200, 201])[:, None] != ids
    high, low = headness(anchors @ keys.T, foreign, 0.1)
    assert high > low


def test_average_is_bias_corrected():
    table = HeadnessTable(2, 0.97, 0.07, 1.0)
    seen = [0.3, 0.5, 0.1]
    for value in seen:
        table.update(torch.tensor([0]), torch.tensor([value]))
    weights = [0.97**2, 0.97, 1.0]
    expected = sum(w * v for w, v in zip(weights, seen, strict=True)) / sum(weights)
    assert table.values[0].item() == pytest.approx(expected, rel=1e-5)
    assert table.visited.tolist() == [True, False]


def test_twice_in_a_batch_counts_once_with_the_mean():
    twice, once = HeadnessTable(1, 0.9, 0.07, 1.0), HeadnessTable(1, 0.9, 0.07, 1.0)
    twice.update(torch.tensor([0, 0]), torch.tensor([0.2, 0.4]))
    once.update(torch.tensor([0]), torch.tensor([0.3]))
    torch.testing.assert_close(twice.values, once.values)


def test_before_the_first_assignment_all_are_at_the_minimum():
    table = HeadnessTable(3, 0.97, 0.07, 1.0)
    table.update(torch.arange(3), torch.tensor([0.1, 0.2, 0.3]))
    assert table.temperatures.tolist() == pytest.approx([0.07] * 3)


@examples(50)
@given(st.lists(st.floats(1e-4, 1), min_size=3, max_size=40), st.randoms())
def test_assignment_is_monotone_bounded_and_ignores_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    tables = []
    for visits in (range(len(values)), order):
        table = HeadnessTable(len(values) + 2, 0.97, 0.07, 1.0)
        for i in visits:
            table.update(torch.tensor([i]), torch.tensor([values[i]]))
        table.assign()
        tables.append(table)
    temperatures = tables[0].temperatures
    assert torch.equal(temperatures, tables[1].temperatures)
    assert bool((temperatures >= 0.07 - 1e-6).all() and (temperatures <= 1.0 + 1e-6).all())
    h = tables[0].values[:-2]
    assert bool((temperatures[:-2][h.argsort(stable=True)].diff() >= -1e-6).all())
    assert temperatures[-2:].tolist() == pytest.approx([0.07, 0.07])  # never visited


def test_percentiles_leave_out_the_never_visited_and_clip():
    table = HeadnessTable(1000, 0.97, 0.07, 1.0)
    table.update(torch.arange(11), torch.arange(11) / 10.0)
    table.assign()
    t = table.temperatures[:11]
    assert t[0] == t[1] == pytest.approx(0.07)
    assert t[9] == t[10] == pytest.approx(1.0)
    assert t[5].item() == pytest.approx((0.07 + 1.0) / 2, rel=1e-4)


def test_no_spread_is_no_division_by_zero():
    table = HeadnessTable(4, 0.97, 0.07, 1.0)
    table.assign()  # nobody visited
    table.update(torch.arange(4), torch.full((4,), 0.02))
    table.assign()
    assert table.temperatures.tolist() == pytest.approx([0.07] * 4)


def test_survives_save_and_load():
    first, second = HeadnessTable(5, 0.97, 0.07, 1.0), HeadnessTable(5, 0.97, 0.07, 1.0)
    first.update(torch.arange(5), torch.rand(5))
    first.assign()
    second.load_state(first.state())
    for table in (first, second):
        table.update(torch.tensor([1, 2]), torch.tensor([0.5, 0.1]))
    assert torch.equal(first.temperatures, second.temperatures)
    assert torch.equal(first.values, second.values)
