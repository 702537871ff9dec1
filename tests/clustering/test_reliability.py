from __future__ import annotations

import math

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.clustering.reliability import (
    classwise_rank_share,
    kappa,
    margin,
    rank_share,
    stability,
)


def test_three_instances_by_hand():
    last = [[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]
    early = [[0.5, 0.5], [0.6, 0.4], [0.4, 0.6]]
    q = np.array([early, [[0.25, 0.75], [0.9, 0.1], [0.3, 0.7]], last])

    def kl(p, r):
        return sum(a * math.log(a / b) for a, b in zip(p, r, strict=True))

    expected = [sum(1 / max(kl(last[i], q[t][i]), 1e-6) for t in range(2)) for i in range(3)]
    np.testing.assert_allclose(stability(q), expected, rtol=1e-5)
    means = [-np.mean([max(kl(last[i], q[t][i]), 1e-6) for t in range(2)]) for i in range(3)]
    np.testing.assert_allclose(stability(q, "neg_mean_kl"), means, rtol=1e-5)
    assert stability(q, "last_k_agreement").tolist() == [0.5, 1.0, 1.0]


def test_zeros_and_equal_snapshots_stay_finite():
    q = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
    assert np.isfinite(stability(q)).all()
    assert np.isfinite(stability(q, "neg_mean_kl")).all()
    assert stability(np.stack([q[0]] * 5))[0] == pytest.approx(4e6)


def test_ranks_share_ties_and_a_singleton_is_one():
    np.testing.assert_allclose(rank_share(np.array([3.0, 1.0, 1.0, 2.0])), [1, 0.375, 0.375, 0.75])
    shares = classwise_rank_share(np.array([5.0, 1.0, 2.0, 9.0]), np.array([7, 3, 3, 3]))
    np.testing.assert_allclose(shares, [1.0, 1 / 3, 2 / 3, 1.0])
    assert len(rank_share(np.array([]))) == 0


@examples(60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_ranks_equal_scipy(scores):
    from scipy.stats import rankdata

    np.testing.assert_allclose(
        rank_share(np.array(scores, float)), rankdata(scores, "average") / len(scores)
    )


def test_ranks_ignore_the_order_of_instances():
    rng = np.random.default_rng(0)
    scores, classes = rng.integers(0, 9, 50).astype(float), rng.integers(0, 4, 50)
    order = rng.permutation(50)
    np.testing.assert_array_equal(
        classwise_rank_share(scores, classes)[order],
        classwise_rank_share(scores[order], classes[order]),
    )


def test_kappa_starts_full_and_falls_quadratically():
    u = np.arange(1, 1001) / 1000
    assert (kappa(u, 0.0, scale=0.7) == 0.7).all()
    series = np.stack([kappa(u, t) for t in np.linspace(0, 1, 21)])
    assert (np.diff(series, axis=0) <= 0).all()  # never rises with time
    assert (np.diff(series, axis=1) >= 0).all()  # never falls with rank
    assert kappa(u, 1.0).mean() == pytest.approx(1 - ((1 - u) ** 2).mean())
    assert kappa(u, 1.0).mean() == pytest.approx(2 / 3, abs=1e-3)
    assert kappa(np.array([1.0]), 1.0)[0] == 1.0
    assert kappa(np.array([0.25]), 0.75)[0] == 1 - 0.5**2


def test_modes():
    u, overall = np.array([0.25, 0.5, 1.0]), np.array([1.0, 0.1, 0.2])
    assert kappa(u, 1.0, "none").tolist() == [1, 1, 1]
    assert kappa(u, 0.3, "classwise_cut", drop_share=0.5).tolist() == [0, 0, 1]
    assert kappa(u, 0.3, "global_cut", drop_share=0.5, global_rank_N=overall).tolist() == [1, 0, 0]
    np.testing.assert_allclose(
        kappa(u, 1.0, "quadratic_global", global_rank_N=overall), [1, 1 - 0.9**2, 1 - 0.8**2]
    )
    with pytest.raises(ValueError):
        kappa(u, 1.0, "global_cut")


def test_margin_is_the_log_ratio_of_the_two_largest():
    found = margin(np.array([[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]], np.float32))
    np.testing.assert_allclose(found, [np.log(0.6 / 0.3), 0], atol=1e-6)
    heat, cosines = 0.1, np.array([[0.9, 0.2, 0.5]])  # of a softmax: how far the second centre is
    power = np.exp(cosines / heat)
    assert margin(power / power.sum())[0] == pytest.approx((0.9 - 0.5) / heat)


def test_margin_is_floored_and_needs_no_second_output():
    certain = np.array([[1.0, 0.0]])
    assert margin(certain, probability_floor=1e-4)[0] == pytest.approx(np.log(1e4))
    assert margin(certain[:, :1], probability_floor=1e-4)[0] == pytest.approx(np.log(1e4))
    assert margin(certain[:0]).shape == (0,)
