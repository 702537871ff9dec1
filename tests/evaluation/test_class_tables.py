"""Rows by class and by output, against counting them one at a time."""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.class_tables import per_class, per_output
from gcdis_ray.evaluation.crop_truth import CropTruth

IDS = (5, 7, 20)
CLASSES = ClassColumns(
    [{"category_id": i, "name": f"class {i}", "known": i == 7} for i in IDS], {0: 1}
)
NUM_OUTPUTS = 5
OUTPUTS = [{"class_index": k, "name": f"n{k}", "known": k == 0} for k in range(NUM_OUTPUTS)]

crops = st.lists(
    st.tuples(
        st.booleans(),  # labeled, as the known class
        st.sampled_from((-1, *IDS)),  # what an unlabeled one shows
        st.integers(0, NUM_OUTPUTS - 1),  # its label
        st.integers(-1, len(IDS) - 1),  # the column it was named as
        st.sampled_from((0.0, 0.25, 0.5)),  # headness, and reliability
    ),
    max_size=30,
)


def arrays(rows: list[tuple]) -> tuple[CropTruth, dict, dict, np.ndarray]:
    free = [n for n, row in enumerate(rows) if not row[0]]
    category = np.array([rows[n][1] for n in free], dtype=np.int64)
    truth = CropTruth(np.array(free, dtype=np.int64), category, {7: 3}, 0, frozenset(IDS), True)
    heat = np.array([row[4] for row in rows], dtype=np.float32)
    given = np.array([0 if row[0] else -1 for row in rows], dtype=np.int32)
    assigned = {"class_index": given, "headness": heat, "temperature": heat + 1}
    pseudo = {
        "cluster_id": np.array([rows[n][2] for n in free], dtype=np.int32),
        "reliability": heat[free],
    }
    return truth, assigned, pseudo, np.array([rows[n][3] for n in free], dtype=np.int64)


def average(values: list[float]) -> Any:
    return pytest.approx(mean(values)) if values else None


@examples(150)
@given(crops)
def test_classes_one_at_a_time(rows: list[tuple]):
    truth, assigned, _, named = arrays(rows)
    found = per_class(CLASSES, truth, named, assigned, {1: "head"}, None)
    for column, (category_id, row) in enumerate(zip(IDS, found, strict=True)):
        mine = [r for r in rows if not r[0] and r[1] == category_id]
        trained = mine + [r for r in rows if r[0] and category_id == 7]
        assert row["num_crops"] == len(mine)
        assert row["num_training_crops"] == len(trained)
        assert row["accuracy"] == average([float(r[3] == column) for r in mine])
        assert row["headness"] == average([r[4] for r in trained])
        assert row["temperature"] == average([r[4] + 1 for r in trained])
        assert row["num_objects"] == (3 if category_id == 7 else 0)
        assert row["frequency"] == ("head" if category_id == 7 else None)


@examples(150)
@given(crops)
def test_outputs_one_at_a_time(rows: list[tuple]):
    truth, _, pseudo, _ = arrays(rows)
    found = per_output(OUTPUTS, NUM_OUTPUTS, CLASSES, truth, pseudo, {2: 0})
    for output, row in enumerate(found):
        mine = [r for r in rows if not r[0] and r[2] == output]
        shown = [r[1] for r in mine if r[1] >= 0]
        most = max(sorted(set(shown)), key=shown.count, default=None)  # of equal ones, the first
        assert (row["size"], row["num_matched"]) == (len(mine), len(shown))
        assert row["majority_category_id"] == most
        assert row["purity"] == average([float(s == most) for s in shown])
        assert row["mean_reliability"] == average([r[4] for r in mine])
        assert row["mapped_category_id"] == (5 if output == 2 else None)
