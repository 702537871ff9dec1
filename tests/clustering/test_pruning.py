"""Which outputs become clusters: rules on hand-made cases, stability against another kappa."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from gcdis_ray.clustering.pruning import Agreement, prune, stability

RULES = dict(min_members=2, min_confidence=0.3, merge_cosine=0.9)


def agreement_of(choice_TN: list[list[int]], confidence_N: list[float] | None = None) -> Agreement:
    """An entry per crop and snapshot: entries of one pair add up."""
    last = choice_TN[-1]
    sure = confidence_N if confidence_N is not None else [0.9] * len(last)
    rows = [
        (step, earlier, last[n], 1, sure[n])
        for step, choices in enumerate(choice_TN)
        for n, earlier in enumerate(choices)
    ]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Agreement(*columns)


def directions(*cosines_to_first: float) -> np.ndarray:
    """Unit rows in two dimensions by their angle's cosine to (1, 0)."""
    cosine = np.array(cosines_to_first)
    return np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)


def test_an_output_with_few_or_unsure_crops_is_dropped_and_a_known_one_never():
    last = [0, 2, 2, 3, 4, 4, 4]
    sure = [0.9, 0.8, 0.7, 0.9, 0.2, 0.2, 0.3]
    found = prune(agreement_of([last, last], sure), np.eye(6), 2, **RULES)
    assert found.groups == [[0], [1], [2]]  # 1 has no crop, but is known
    assert found.report["num_outputs"] == 6
    assert found.report["num_clusters"] == 3
    rows = found.report["outputs"]
    assert [row["dropped_for"] for row in rows] == [
        [], [], [], ["members"], ["confidence"], ["members"],
    ]  # fmt: skip
    assert [row["members"] for row in rows] == [1, 0, 2, 1, 3, 0]
    assert [row["cluster"] for row in rows] == [0, 1, 2, None, None, None]
    assert rows[2]["confidence"] == pytest.approx(0.75)
    assert rows[5]["confidence"] is None


def test_thresholds_are_inclusive():
    last, sure = [1, 1, 2, 2, 2], [0.25, 0.25, 0.9, 0.9, 0.9]
    rules = RULES | dict(min_confidence=0.25)
    assert prune(agreement_of([last, last], sure), np.eye(3), 1, **rules).groups == [[0], [1], [2]]
    rules = RULES | dict(min_members=3)
    assert prune(agreement_of([last, last], sure), np.eye(3), 1, **rules).groups == [[0], [2]]


EARLIER = [0] * 10 + [1, 2, 1, 2, 1] + [2, 1, 2, 1, 2]
SWAPPED = [0] * 10 + [1] * 5 + [2] * 5
ALIKE = directions(0.0, 1.0, 0.95)


def test_outputs_that_exchange_crops_are_joined():
    found = prune(agreement_of([EARLIER, SWAPPED]), ALIKE, 1, **RULES)
    assert found.groups == [[0], [1, 2]]
    (pair,) = found.report["merges"]
    assert pair["merged"]
    assert pair["outputs"] == [[1], [2]]
    assert pair["cosine"] == pytest.approx(0.95)
    assert pair["stability_joined"] == 1 > pair["stability_apart"]
    assert [row["cluster"] for row in found.report["outputs"]] == [0, 1, 1]


def test_outputs_that_do_not_exchange_crops_stay_apart():
    earlier = [0] * 9 + [1] + [1] * 4 + [0] + [2] * 5  # 1 and the rest exchange, 1 and 2 do not
    found = prune(agreement_of([earlier, SWAPPED]), ALIKE, 1, **RULES)
    assert found.groups == [[0], [1], [2]]
    (pair,) = found.report["merges"]
    assert not pair["merged"]
    assert pair["stability_joined"] < pair["stability_apart"]


def test_outputs_without_change_are_joined_by_their_cosine():
    found = prune(agreement_of([SWAPPED, SWAPPED]), ALIKE, 1, **RULES)
    assert found.groups == [[0], [1, 2]]
    apart = prune(agreement_of([EARLIER, SWAPPED]), directions(0, 1, 0.89), 1, **RULES)
    assert apart.groups == [[0], [1], [2]]
    assert apart.report["merges"] == []


def test_known_outputs_are_not_joined_with_any():
    same = np.ones((3, 1))
    assert prune(agreement_of([EARLIER, SWAPPED]), same, 2, **RULES).groups == [[0], [1], [2]]
    assert prune(agreement_of([EARLIER, SWAPPED]), same, 3, **RULES).groups == [[0], [1], [2]]


def test_a_chain_of_alike_prototypes_is_not_one_cluster():
    angles = np.deg2rad([0, 20, 40])  # cosines 0.94 and 0.94 of neighbours, 0.77 of the ends
    prototypes = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    last = [0, 0, 1, 1, 2, 2]
    found = prune(agreement_of([last, last]), prototypes, 0, **RULES)
    assert sorted(map(len, found.groups)) == [1, 2]


def test_a_dropped_output_joins_nothing():
    last = [1] * 5 + [2]
    found = prune(agreement_of([last, last]), np.ones((3, 1)), 1, **RULES)
    assert found.groups == [[0], [1]]
    assert found.report["merges"] == []


@examples(60)
@given(st.data())
def test_stability_is_the_mean_of_cohens_kappa(data):
    size, times = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 3))
    outputs = st.lists(st.integers(0, 5), min_size=size, max_size=size)
    choice_TN = [data.draw(outputs) for _ in range(times)]
    clusters = data.draw(st.sampled_from([[[1], [2]], [[1, 2]], [[0, 5], [3], [4]]]))
    name = np.full(6, 9)
    for number, cluster in enumerate(clusters):
        name[cluster] = number
    expected = []
    for choices in choice_TN[:-1]:
        one, other = name[choices], name[choice_TN[-1]]
        constant = len({*one.tolist(), *other.tolist()}) == 1
        expected.append(1.0 if constant else cohen_kappa_score(one, other))
    wanted = np.mean(expected) if expected else 1.0
    assert stability(agreement_of(choice_TN), clusters) == pytest.approx(wanted)


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.floats(-1, 1))
def test_groups_are_known_outputs_then_parts_of_the_kept_ones(seed, num_known, merge_cosine):
    rng = np.random.default_rng(seed)
    choice_TN = rng.integers(0, 8, (3, 40)).tolist()
    confidence = rng.uniform(0, 1, 40).tolist()
    prototypes = rng.normal(size=(8, 3))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    rules = dict(min_members=4, min_confidence=0.4, merge_cosine=merge_cosine)
    agreement = agreement_of(choice_TN, confidence)
    groups, report = prune(agreement, prototypes, num_known, **rules)
    assert groups[:num_known] == [[output] for output in range(num_known)]
    kept = [output for group in groups for output in group]
    assert len(set(kept)) == len(kept)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    last = np.array(choice_TN[-1])
    for output in range(num_known, 8):
        mine = np.array(confidence)[last == output]
        assert (output in kept) == (len(mine) >= 4 and mine.mean() >= 0.4)
    for group in groups[num_known:]:
        for a in group:
            for b in group:
                assert a == b or prototypes[a] @ prototypes[b] > merge_cosine
    assert report["num_clusters"] == len(groups)
    assert prune(agreement, prototypes, num_known, **rules) == (groups, report)
