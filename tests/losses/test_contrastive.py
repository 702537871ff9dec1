"""Contrastive losses against a double loop in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gcdis_ray.losses.contrastive import (
    class_contrastive_loss,
    contrastive_log_probabilities,
    instance_contrastive_loss,
)


def brute_force(anchors, keys, temperatures, ids, key_ids, labels, key_labels, own):
    """(L_u, sum of L_s over labeled anchors) by definition."""
    instance, supervised = [], []
    for i in range(len(anchors)):
        members = [j for j in range(len(keys)) if key_ids[j] != ids[i] or j == own[i]]
        score = {j: float(anchors[i] @ keys[j]) / float(temperatures[i]) for j in members}
        total = math.log(sum(math.exp(s) for s in score.values()))
        instance.append(total - score[int(own[i])])
        positives = [j for j in members if key_labels[j] == labels[i]]
        if labels[i] >= 0:
            supervised.append(sum(total - score[j] for j in positives) / len(positives))
    return sum(instance) / len(instance), sum(supervised)


def problem(labels, seed=0, extra=9):
    torch.manual_seed(seed)
    n = len(labels)
    labels = torch.tensor(labels)
    anchors = F.normalize(torch.randn(n, 6, dtype=torch.float64), dim=1).requires_grad_()
    keys = F.normalize(torch.randn(n + extra, 6, dtype=torch.float64), dim=1)
    ids = torch.arange(n)
    key_ids = torch.cat([ids, torch.randint(0, 2 * n, (extra,))])  # some stale keys of our own
    key_labels = torch.cat([labels, torch.randint(-1, 3, (extra,))])
    temperatures = torch.rand(n, dtype=torch.float64) + 0.07
    return anchors, keys, temperatures, ids, key_ids, labels, key_labels, torch.arange(n)


@pytest.mark.parametrize(
    "labels", [[0, 1, 1, -1, 2, -1], [-1, -1, -1], [0], [-1, 2, -1], [1, 1, 1, 1]]
)
def test_equals_brute_force(labels):
    anchors, keys, temperatures, ids, key_ids, labels, key_labels, own = problem(labels)
    log_p = contrastive_log_probabilities(anchors @ keys.T, temperatures, ids, key_ids, own)
    count = max(int((labels >= 0).sum()), 1)
    instance = instance_contrastive_loss(log_p, own)
    supervised = class_contrastive_loss(log_p, labels, key_labels, count)
    expected = brute_force(
        anchors.detach(), keys, temperatures, ids, key_ids, labels, key_labels, own
    )
    assert instance.item() == pytest.approx(expected[0], rel=1e-12)
    assert supervised.item() == pytest.approx(expected[1] / count, rel=1e-12, abs=1e-12)
    (instance + supervised).backward()
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()
    assert anchors.grad.abs().sum() > 0


def test_one_key_per_instance_is_cross_entropy():
    torch.manual_seed(0)
    vectors, own = F.normalize(torch.randn(5, 4), dim=1), torch.tensor([0, 1, 2, 3, 4])
    keys = F.normalize(torch.randn(5, 4), dim=1)
    log_p = contrastive_log_probabilities(vectors @ keys.T, torch.full((5,), 0.2), own, own, own)
    expected = F.cross_entropy(vectors @ keys.T / 0.2, own)
    torch.testing.assert_close(instance_contrastive_loss(log_p, own), expected)


def test_stale_keys_change_nothing():
    anchors, keys, temperatures, ids, key_ids, *_, own = problem([0, 1, -1], extra=0)
    plain = contrastive_log_probabilities(anchors @ keys.T, temperatures, ids, key_ids, own)
    stale = F.normalize(torch.randn(3, 6, dtype=torch.float64), dim=1)
    for row in range(3):  # an older key of one anchor changes only the other anchors
        more, more_ids = torch.cat([keys, stale[row : row + 1]]), torch.cat([key_ids, ids[[row]]])
        log_p = contrastive_log_probabilities(anchors @ more.T, temperatures, ids, more_ids, own)
        torch.testing.assert_close(log_p[row, :3], plain[row])
        assert log_p[row, 3] == -math.inf
        assert bool((log_p[[r for r in range(3) if r != row], 3] > -math.inf).all())
