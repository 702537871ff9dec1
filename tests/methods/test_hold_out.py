"""Hold-out of known classes: what is hidden stays hidden, and the score is what it says."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from toy_discovery import MIXED, Run, make
from toy_training import FolderCheckpoints, digests, toy_plan

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods import hold_out
from gcdis_ray.methods.hold_out import HoldOut, Score, choose_hidden
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.training.loop import train
from gcdis_ray.training.plan import Progress

HELD = HoldOut(hidden=(0,), visible=(1,))


def brute_force(held: HoldOut, pairs: list[tuple[int, int]], num_clusters: int) -> float:
    """Best share of crops of hidden classes over every one-to-one map to clusters of free outputs.

    Args:
        pairs: cluster and class of each crop.
    """
    mine = [(cluster, label) for cluster, label in pairs if label in held.hidden]
    # a place beyond all clusters for each class that gets none
    free = range(held.num_visible, num_clusters + len(held.hidden))
    best = 0
    for chosen in permutations(free, len(held.hidden)):
        named = dict(zip(held.hidden, chosen, strict=True))
        best = max(best, sum(named[label] == cluster for cluster, label in mine))
    return best / len(mine)


@examples(60)
@given(
    st.sampled_from([((0,), (1, 2)), ((1, 2), (0,)), ((0, 2, 3), (1,)), ((1,), (0,))]),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=20),
)
def test_accuracy_is_that_of_the_best_one_to_one_map(classes, pairs):
    held = HoldOut(*classes)
    pairs = [(k, y) for k, y in pairs if y < len(held.hidden) + len(held.visible)]
    cluster_N, labels_N = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    known_N = labels_N >= 0
    visible, hidden = held.score(cluster_N[known_N], labels_N[known_N])
    if not np.isin(labels_N, held.hidden).any():
        assert hidden is None
    else:
        assert hidden == pytest.approx(brute_force(held, pairs, 5))
    seen = [k < held.num_visible and held.visible[k] == y for k, y in pairs if y in held.visible]
    assert visible == (pytest.approx(np.mean(seen)) if seen else None)


def test_a_crop_in_the_cluster_of_a_visible_class_is_wrong():
    held = HoldOut(hidden=(1,), visible=(0, 2))
    labels_N = np.array([1, 1, 1, 1, -1, 2])
    assert held.score_all(np.array([1, 1, 1, 4, 4, 1]), labels_N) == (None, 0.25)


def test_withheld_crops_of_visible_classes_count_as_much_as_hidden_classes():
    held = HoldOut(hidden=(1,), visible=(0, 2), withheld=(4, 6))
    labels_N = np.array([1, 1, 1, 1, 0, 0, 2, -1])
    assert held.told(labels_N).tolist() == [-1, -1, -1, -1, -1, 0, -1, -1]
    assert held.judged(labels_N).tolist() == [0, 1, 2, 3, 4, 6]
    found = held.score_all(np.array([2, 2, 2, 3, 0, 0, 3, 3]), labels_N)
    assert found == (0.5, 0.75)
    assert found.mean == 0.625
    assert Score(None, 0.5).mean == 0.5
    assert Score(None, None).mean is None


@pytest.mark.parametrize(
    ("share", "num_known", "num_hidden"),
    [(0.01, 5, 1), (0.4, 5, 2), (0.9, 5, 4), (0.9, 2, 1), (0.5, 8, 4)],
)
def test_a_share_is_hidden_and_one_class_at_least_is_not(share, num_known, num_hidden):
    labels_N = np.arange(40) % (num_known + 1) - 1
    config = HoldOutConfig(share=share)
    held = choose_hidden(labels_N, num_known, config)
    assert held is not None
    assert len(held.hidden) == num_hidden
    assert sorted(held.hidden + held.visible) == list(range(num_known))
    told_N = held.told(labels_N)
    for row, (label, output) in enumerate(zip(labels_N, told_N, strict=True)):
        told = label in held.visible and row not in held.withheld
        assert output == (held.visible.index(label) if told else -1)
    sizes = np.bincount(labels_N[list(held.withheld)], minlength=num_known)
    for label in held.visible:  # a third of 40 / (known + 1) crops each
        assert sizes[label] == round((labels_N == label).sum() / 3)
    assert held == choose_hidden(labels_N, num_known, config)


def test_the_seed_says_which_and_a_class_without_crops_is_never_hidden():
    labels_N = np.array([0, 1, 3, 4, 4, -1])  # class 2 is known, but nothing of it is labeled
    found = [choose_hidden(labels_N, 5, HoldOutConfig(share=0.4, seed=s)) for s in range(20)]
    assert len({held.hidden for held in found if held}) > 3
    assert all(held and 2 in held.visible for held in found)
    assert choose_hidden(labels_N, 5, HoldOutConfig(seed=3)) is None
    with pytest.raises(ConfigError, match="2 known classes, 1 have labeled crops"):
        choose_hidden(np.array([1, 1, -1]), 2, HoldOutConfig(share=0.5))


def test_sample_is_of_withheld_labels_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hold_out, "MAX_MEASURED", 3)
    labels_N = np.array(MIXED)
    rows, classes = HELD.sample(labels_N)
    assert len(rows) == 3
    assert (labels_N[rows] == 0).all()
    assert (classes == 0).all()


def test_training_never_sees_a_hidden_label_and_the_crops_keep_theirs():
    held, task = Run(make(MIXED, hold_out=HELD)), make(MIXED, hold_out=HELD)
    for step in range(6):
        for part in held.parts(step):
            given = np.array(MIXED)[part["instances"].numpy()]
            assert part["labels"].tolist() == [0 if label == 1 else -1 for label in given]
        assert held.task.keys.step.labels_F.max() < HELD.num_visible
        held.step(step)
    assert task.problem.crops.table["class_index"].to_pylist() == MIXED


def fit(folder: Path, every: int) -> tuple[dict[str, str], list[Progress]]:
    told: list[Progress] = []
    task = make(MIXED, 6, hold_out=HELD, measure_every=every, snapshot_steps=[3, 6])
    checkpoints = FolderCheckpoints(folder / "checkpoints")
    members = train(task, toy_plan(folder), checkpoints, torch.device("cpu"), told.append)
    return digests(members), told


def test_measuring_changes_no_byte_of_training_and_is_told_at_once(tmp_path: Path):
    quiet, silent = fit(tmp_path / "quiet", 0)
    loud, told = fit(tmp_path / "loud", 2)
    assert quiet.pop("holdout_curve") != loud.pop("holdout_curve")
    assert quiet == loud
    assert not any(progress.values for progress in silent)
    values = {progress.done: progress.values for progress in told if progress.values}
    assert list(values) == [2, 4, 6]
    assert all(0 <= found["holdout_accuracy"] <= 1 for found in values.values())


def test_measuring_leaves_the_modes_of_all_modules():
    run = Run(make(MIXED, hold_out=HELD, measure_every=1))
    frozen = run.module.model.projector.eval()
    run.step(0)
    assert run.module.model.training
    assert run.module.model.encoder.training
    assert not frozen.training
    assert run.task.measured(1)
