"""What objectives read, and which of them know ground truth."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from tables import SCHEMAS

from gcdis_ray.errors import DataError
from gcdis_ray.run.pipeline import MAY_OPEN_SEALED, SEALED, load_recipe
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest
from gcdis_ray.sweeps.objectives import OBJECTIVES, read


class Held:
    """An opener of members that are held in memory."""

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members

    def read_bytes(self, record: FileRecord) -> bytes:
        return json.dumps(self.members[record.path]).encode()

    def read_table(self, record: FileRecord, columns: Any) -> pa.Table:
        return pa.Table.from_pylist(self.members[record.path], schema=SCHEMAS[record.path])


def artifact(stage: str, **members: Any) -> Artifact:
    files = {name: [FileRecord(name, 0, "")] for name in members}
    return Artifact(Manifest(stage, "key", 1, {}, {}, None, None, files), Held(members))


def test_training_loss_is_the_last_of_its_curve():
    rows = [
        {"step": 5, "name": "total", "value": 3.0},
        {"step": 5, "name": "lr", "value": 9.0},
        {"step": 10, "name": "total", "value": 2.0},
    ]
    reading = read(OBJECTIVES["training_loss"], artifact("discover", history=rows))
    assert (reading.value, reading.curve) == (2.0, ((5, 3.0), (10, 2.0)))


def test_holdout_accuracy():
    holdout = {
        "hidden_classes": ["digit 3"], "accuracy": 0.75, "visible_accuracy": 0.9,
        "curve": [{"step": 4, "accuracy": 0.5}],
    }  # fmt: skip
    reading = read(OBJECTIVES["holdout_accuracy"], artifact("discover", holdout=holdout))
    assert (reading.value, reading.curve) == (0.75, ((4, 0.5),))
    assert reading.metrics["hidden_classes"] == ["digit 3"]


METRICS = {
    "discovery": {"accuracy": {"all": 0.1, "known": 0.2, "novel": 0.3}},
    "detection": {"mask_ap": {"all": 0.4, "known": 0.5, "novel": 0.6}},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("accuracy_all", 0.1), ("accuracy_known", 0.2), ("accuracy_novel", 0.3),
     ("mask_ap_all", 0.4), ("mask_ap_known", 0.5), ("mask_ap_novel", 0.6)],
)  # fmt: skip
def test_oracles_read_the_metrics(name: str, value: float):
    goal = OBJECTIVES[name]
    assert goal.oracle
    assert read(goal, artifact("evaluate", metrics=METRICS)).value == value
    nothing = {
        "discovery": {"accuracy": {"all": None}}, "detection": {"mask_ap": None},
    }  # fmt: skip
    with pytest.raises(DataError, match="cannot be computed"):
        read(goal, artifact("evaluate", metrics=nothing))


def test_only_stages_that_open_the_seal_make_an_oracle():
    stages = load_recipe("gcdis")
    for goal in OBJECTIVES.values():
        opens = SEALED in stages[goal.stage].TAKES
        assert goal.oracle == opens == (goal.stage in MAY_OPEN_SEALED)
