from __future__ import annotations

from collections import deque

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.models.queue import FeatureQueue


def held(queue: FeatureQueue) -> list[torch.Tensor]:
    """Keys, labels and instances of the filled slots."""
    state = queue.state()
    return [state[name][: queue.num_valid] for name in ("keys", "labels", "instances")]


def rows(queue: FeatureQueue) -> list[tuple]:
    keys, labels, instances = held(queue)
    return sorted(zip(instances.tolist(), labels.tolist(), keys[:, 0].tolist(), strict=True))


@examples(60)
@given(st.integers(1, 33), st.lists(st.integers(0, 80), max_size=12))
def test_holds_what_a_deque_holds(capacity, batches):
    queue, reference, count = FeatureQueue(capacity, 2), deque(maxlen=capacity), 0
    for size in batches:
        ids = torch.arange(count, count + size)
        count += size
        queue.enqueue(torch.stack([ids, -ids], 1).float(), ids % 5 - 1, ids)
        reference.extend((i, i % 5 - 1, float(i)) for i in ids.tolist())
        assert queue.num_valid == len(reference)
        assert rows(queue) == sorted(reference)


def test_state_brings_back_the_same_queue():
    first, second = FeatureQueue(7, 2), FeatureQueue(7, 2)
    ids = torch.arange(10)
    first.enqueue(torch.randn(10, 2), ids, ids)
    second.load_state(first.state())
    more = torch.randn(3, 2)
    for queue in (first, second):
        queue.enqueue(more, ids[:3], ids[:3] + 50)
    assert rows(first) == rows(second)
    assert torch.equal(held(first)[0], held(second)[0])


@examples(40)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 6))
def test_shows_the_keys_of_the_step_before_those_of_the_ring(capacity, front, steps):
    queue = FeatureQueue(capacity, 2, front=front)
    for step in range(steps):
        ids = torch.arange(step * front, (step + 1) * front)
        keys = torch.stack([ids, -ids], 1).float()
        seen = queue.show(keys, ids % 3 - 1, ids)
        for shown, new, kept in zip(seen, (keys, ids % 3 - 1, ids), held(queue), strict=True):
            assert torch.equal(shown, torch.cat([new, kept]))
        assert seen[0].data_ptr() == queue.show(keys, ids, ids)[0].data_ptr()  # nothing is copied
        queue.enqueue(keys, ids % 3 - 1, ids)
