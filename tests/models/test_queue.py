from __future__ import annotations

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcdis_ray.models.queue import FeatureQueue


def rows(queue: FeatureQueue) -> list[tuple]:
    return sorted(
        zip(queue.instances.tolist(), queue.labels.tolist(), queue.keys[:, 0].tolist(), strict=True)
    )


@settings(max_examples=60, deadline=None)
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
    assert torch.equal(first.keys, second.keys)
