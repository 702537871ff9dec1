"""What objectives read, and which of them know ground truth."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from tables import SCHEMAS

from gcdis_ray.errors import DataError
from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.run.graph import load_recipe, wire
from gcdis_ray.stages.objective import Objective, Reading
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest
from gcdis_ray.store.members import document, sealed
from gcdis_ray.sweeps.objectives import goals, goals_of

GOALS = goals("gcdis")


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
    reading = GOALS["training_loss"].read(artifact("discover", history=rows))
    assert (reading.value, reading.curve) == (2.0, ((5, 3.0), (10, 2.0)))


def test_holdout_accuracy():
    holdout = {
        "hidden_classes": ["digit 3"], "accuracy": 0.75,
        "known_accuracy": 0.9, "novel_accuracy": 0.6, "placed_accuracy": None,
        "curve": [{"step": 4, "accuracy": 0.5}],
    }  # fmt: skip
    reading = GOALS["holdout_accuracy"].read(artifact("discover", holdout=holdout))
    assert (reading.value, reading.curve) == (0.75, ((4, 0.5),))
    assert reading.metrics["hidden_classes"] == ["digit 3"]


METRICS = {
    "discovery": {
        "accuracy": {"all": 0.1, "known": 0.2, "novel": 0.3},
        "found_and_sorted": {"all": 0.1, "known": 0.2, "novel": 0.3},
    },
    "detection": {"mask_ap": {"all": 0.4, "known": 0.5, "novel": 0.6}},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("accuracy_all", 0.1), ("accuracy_known", 0.2), ("accuracy_novel", 0.3),
     ("mask_ap_all", 0.4), ("mask_ap_known", 0.5), ("mask_ap_novel", 0.6)],
)  # fmt: skip
def test_oracles_read_the_metrics(name: str, value: float):
    goal = GOALS[name]
    assert goal.oracle
    assert goal.read(artifact("evaluate", metrics=METRICS)).value == value
    nothing = {
        "discovery": {"accuracy": {"all": None}, "found_and_sorted": {"all": None}},
        "detection": {"mask_ap": None},
    }  # fmt: skip
    with pytest.raises(DataError, match="cannot be computed"):
        goal.read(artifact("evaluate", metrics=nothing))


def test_a_member_that_the_method_does_not_leave_is_named():
    with pytest.raises(DataError, match="training_loss is read from 'history', which"):
        GOALS["training_loss"].read(artifact("discover", assignments=[]))


def test_only_stages_that_open_the_seal_make_an_oracle():
    graph = load_recipe("gcdis")
    assert {goal.node for goal in GOALS.values() if goal.oracle} == {"evaluate"}
    for goal in GOALS.values():
        assert goal.oracle == graph[goal.node].opens_sealed


def test_a_probe_runs_its_givers_only():
    assert {goal.until for goal in GOALS.values() if goal.objective.probe} == {"embed"}
    assert (GOALS["silhouette"].node, GOALS["silhouette"].section) == ("count", "stages.count")


def stage(ID: str, takes: Any = (), gives: Any = (), *names: str) -> Any:
    """A stage of another package: what a graph and a sweep look at."""
    offers = [Objective(name, "max", "", read=lambda artifact: Reading(0.0)) for name in names]
    unused = dict(VERSION=1, SEEDED=False, Config=None, forecast=None, run=None)
    return SimpleNamespace(ID=ID, TAKES=takes, GIVES=gives, objectives=lambda: offers, **unused)


def test_objectives_of_other_stages_are_found_and_the_graph_says_which_are_oracles():
    truth = stage("truth", (), (document("answer", sealed=True),), "peek")
    guess = stage("guess", (), (document("guess"),), "certainty", "speed")
    score = stage("score", (sealed("answer"), "guess"), (document("score"),), "right")
    nodes = (Node("a", truth), Node("b", guess), Node("c", score), Node("d", guess))
    found = goals_of(wire(Recipe(nodes[:3])))
    assert {name: (goal.node, goal.oracle) for name, goal in found.items()} == {
        "peek": ("a", True), "certainty": ("b", False), "speed": ("b", False), "right": ("c", True),
    }  # fmt: skip
    twice = goals_of(wire(Recipe(nodes)))
    assert list(twice) == ["peek", "b.certainty", "b.speed", "right", "d.certainty", "d.speed"]
