from __future__ import annotations

import numpy as np
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.data.crops.sampling import CropSampler, Shuffle


@examples(40)
@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 30))
def test_pieces_of_the_stream_fit_together(size, start, count):
    stream = Shuffle(np.arange(size) + 100, seed=1, stream=2)
    whole = stream.take(0, start + count).tolist() if start + count else []
    assert (stream.take(start, count).tolist() if count else []) == whole[start:]
    for lap in range(len(whole) // size):
        assert sorted(whole[lap * size : (lap + 1) * size]) == list(range(100, 100 + size))


def test_laps_differ():
    taken = Shuffle(np.arange(50), seed=0, stream=0).take(0, 100).tolist()
    assert taken[:50] != taken[50:]


def test_going_back_a_lap_gives_the_same_rows():
    """Positions are asked for out of order when training resumes or parts straddle two laps."""
    stream = Shuffle(np.arange(10), seed=3, stream=1)
    order = [stream.take(start, 4).tolist() for start in (0, 8, 4, 18, 8, 0)]
    assert order[0] == order[5]
    assert order[1] == order[4]
    assert order == [
        Shuffle(np.arange(10), seed=3, stream=1).take(start, 4).tolist()
        for start in (0, 8, 4, 18, 8, 0)
    ]


def test_a_lap_is_shuffled_once(monkeypatch):
    made = []
    make = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or make(seed))
    stream = Shuffle(np.arange(100), seed=3, stream=1)
    for start in range(0, 200, 10):
        stream.take(start, 10)
    assert made == [[3, 1, 0], [3, 1, 1]]


def test_share_is_kept_in_every_part():
    labels = np.array([0, 1] + [-1] * 30)
    sampler = CropSampler(labels, 0.25, 8, 4, seed=0)
    for step in range(3):
        for part in range(4):
            rows = sampler.crops(step, part).numpy()
            assert len(rows) == 8
            assert (labels[rows] >= 0).sum() == 2


def test_one_kind_alone_falls_back_to_a_plain_shuffle():
    for labels in (np.array([0, 1, 2]), np.array([-1, -1, -1])):
        rows = CropSampler(labels, 0.5, 3, 1, seed=0).crops(0, 0)
        assert sorted(rows.tolist()) == [0, 1, 2]
