"""The walker: skip what exists, say why the rest runs, resume units, refuse a leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pydantic import Field

from gcdis_ray.config import ComputeConfig, StageConfig, run_config_model, validate
from gcdis_ray.errors import ArtifactError, ConfigError, DataError
from gcdis_ray.recipes import gcdis
from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.run import graph
from gcdis_ray.run import pipeline as walker
from gcdis_ray.run.pipeline import Event, Pipeline, iter_status
from gcdis_ray.run.plan import describe, rows_for_people
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import document, optional, table
from gcdis_ray.store.schemas import HISTORY


class Config(StageConfig):
    rows: int = Field(2, ge=0)
    fail_at: int = -1
    note: str = ""

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"fail_at", "note"})


@dataclass(frozen=True)
class Count:
    rows: int
    fail_at: int
    calls: Path

    def open(self, device: str):
        def step(index: int, *tables: pa.Table, offset: int = 0) -> ShardOutput:
            with self.calls.open("a") as log:
                log.write(f"{index}\n")
            if index == self.fail_at:
                raise DataError("broken on purpose", where=f"shard {index}")
            steps = pa.array([offset + i for i in range(self.rows)], pa.int64())
            table = pa.table({"step": steps, "name": ["x"] * self.rows, "value": [0.0] * self.rows})
            return ShardOutput({"history": table}, {"seen": self.rows})

        return step


def _stages(calls: Path) -> dict[str, Any]:
    def first(inputs, config, work):
        args = [{"offset": 100 * i} for i in range(4)]
        work.map_shards(Count(config.rows, config.fail_at, calls), [], gives=["history"], args=args)
        work.write_json("summary", {"rows": config.rows, "seed": work.seed})

    def second(inputs, config, work):
        table = inputs.table("history")
        work.write_json(
            "total", {"rows": table.num_rows, "steps": table.read()["step"].to_pylist()}
        )
        with pytest.raises(ArtifactError, match="not among what the stage takes"):
            inputs.json("summary")  # first gives it, second does not take it
        if config.note:
            work.write_json(config.note, {})

    def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
        rows = 10 * inputs["history"].rows if inputs else 4 * config.rows
        return Size(rows, 100 * rows)

    common = dict(VERSION=1, Config=Config, forecast=forecast)
    return {
        "first": SimpleNamespace(
            ID="first",
            TAKES=(),
            GIVES=(table("history", HISTORY), document("summary"), document("more", optional=True)),
            SEEDED=True,
            run=first,
            **common,
        ),
        "second": SimpleNamespace(
            ID="second",
            TAKES=("history", optional("nothing")),
            GIVES=(document("total"), document("part_*", optional=True)),
            SEEDED=False,
            run=second,
            **common,
        ),
    }


@pytest.fixture
def open_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages = _stages(tmp_path / "calls")
    recipe = Recipe(tuple(Node(name, stage) for name, stage in stages.items()))
    monkeypatch.setattr(walker, "load_recipe", lambda name: graph.wire(recipe))

    def make(second: dict[str, Any] | None = None, **first: Any) -> Pipeline:
        model = run_config_model(dict.fromkeys(stages, Config))
        sections = {"first": first, "second": second or {}}
        data = dict(name="t", storage=str(tmp_path / "s"), stages=sections)
        return Pipeline(validate(model, data, "test"))

    make.stages = stages  # pyright: ignore[reportFunctionMemberAccess]

    return make


def _run(pipeline: Pipeline, **kwargs: Any) -> list[Event]:
    events: list[Event] = []
    runtime = LocalRuntime(ComputeConfig(runtime="local"))
    pipeline.run(lambda: runtime, events.append, **kwargs)
    return [e for e in events if e.kind != "progress"]


def test_runs_once_then_never_again(open_pipeline, tmp_path: Path):
    assert [e.kind for e in _run(open_pipeline())] == ["start", "done"] * 2
    assert [e.kind for e in _run(open_pipeline(note="changes no key"))] == ["cached"] * 2
    assert (tmp_path / "calls").read_text().split() == ["0", "1", "2", "3"]
    total = open_pipeline().artifacts()["second"].json("total")
    assert total == {"rows": 8, "steps": [0, 1, 100, 101, 200, 201, 300, 301]}
    assert open_pipeline().manifest("first").counts == {"seen": 8}


def test_an_interrupted_stage_redoes_only_what_is_missing(open_pipeline, tmp_path: Path):
    with pytest.raises(DataError, match="broken on purpose"):
        _run(open_pipeline(fail_at=2))
    first, second = iter_status(open_pipeline())
    assert (first["state"], second["state"]) == ("interrupted", "missing")
    assert (first["progress"]["done"], first["progress"]["total"]) == (2, 4)
    assert second["progress"] is None
    assert open_pipeline().why("first") == "interrupted, will continue"
    (tmp_path / "calls").unlink()
    events = _run(open_pipeline())
    assert (tmp_path / "calls").read_text().split() == ["2", "3"]
    assert [e.adopted for e in events if e.kind == "done"] == [2, 0]
    assert open_pipeline().artifacts()["second"].json("total")["rows"] == 8
    assert [s["state"] for s in iter_status(open_pipeline())] == ["done", "done"]


def test_says_why_a_stage_runs(open_pipeline):
    assert open_pipeline().why("first") == "never run"
    _run(open_pipeline())
    changed = open_pipeline(rows=3)
    assert changed.why("first") == "rows changed"
    assert changed.why("second") == "first differs"
    entries = describe(changed)
    assert [e["action"] for e in entries] == ["run", "run"]
    assert "rows changed" in rows_for_people(entries)
    assert "2 cached, 0 to run" in rows_for_people(describe(open_pipeline()))


def test_plan_writes_nothing(open_pipeline, tmp_path: Path):
    describe(open_pipeline())
    assert not (tmp_path / "s").exists()


def test_plan_forecasts_and_learns_from_earlier_artifacts(open_pipeline):
    first, second = describe(open_pipeline())
    assert (first["rows"], first["bytes"]) == (8, 800)
    assert (second["rows"], second["bytes"], second["estimated"]) == (80, 8000, True)
    _run(open_pipeline())
    made = describe(open_pipeline())[1]
    assert not made["estimated"]
    larger = describe(open_pipeline(rows=6))[1]  # thrice the input: thrice what it gave then
    assert larger["estimated"]
    assert (larger["rows"], larger["bytes"]) == (3 * made["rows"], 3 * made["bytes"])


def test_from_and_until(open_pipeline):
    with pytest.raises(ConfigError, match="first must be run"):
        _run(open_pipeline(), start="second")
    assert [e.stage for e in _run(open_pipeline(), until="first")] == ["first", "first"]
    assert [e.stage for e in _run(open_pipeline(), start="second")] == ["second", "second"]
    with pytest.raises(ConfigError, match="no stage"):
        _run(open_pipeline(), until="nothing")


def test_a_recipe_may_not_leak_the_ground_truth(monkeypatch: pytest.MonkeyPatch):
    common = dict(VERSION=1, SEEDED=False, Config=Config, forecast=None, run=None)
    truth = SimpleNamespace(
        ID="ground_truth", TAKES=(), GIVES=(document("truth", sealed=True),), **common
    )
    leak = SimpleNamespace(ID="discover", TAKES=("truth",), GIVES=(), **common)
    recipe = Recipe((Node("ground_truth", truth), Node("discover", leak)))
    monkeypatch.setattr(gcdis, "RECIPE", recipe)
    with pytest.raises(ConfigError, match="sealed"):
        graph.load_recipe("gcdis")


def test_a_stage_gives_what_it_declares_and_nothing_else(open_pipeline):
    _run(open_pipeline({"note": "part_7"}))
    with pytest.raises(ArtifactError, match=r"gave \['extra'\] that it does not declare") as error:
        _run(open_pipeline({"rows": 1, "note": "extra"}))
    assert error.value.where == "stage second"
    assert open_pipeline({"rows": 1}).manifest("second") is None
    open_pipeline.stages["second"].GIVES += (document("promised"),)
    with pytest.raises(ArtifactError, match=r"not \['promised'\] that it does"):
        _run(open_pipeline({"rows": 3}))


def test_two_nodes_of_one_stage_share_its_artifacts(tmp_path: Path, monkeypatch):
    stages = _stages(tmp_path / "calls")
    recipe = Recipe(tuple(Node(name, stages["first"]) for name in ("one", "two")))
    monkeypatch.setattr(walker, "load_recipe", lambda name: graph.wire(recipe))
    model = run_config_model(dict.fromkeys(("one", "two"), Config))
    data = dict(name="t", storage=str(tmp_path / "s"), stages={})
    pipeline = Pipeline(validate(model, data, "test"))
    assert [e.kind for e in _run(pipeline)] == ["start", "done", "cached"]
    assert pipeline.nodes["one"].base == pipeline.nodes["two"].base
    assert pipeline.giver("history") == "two"
    data["stages"] = {"two": {"rows": 3}}
    assert [e.kind for e in _run(Pipeline(validate(model, data, "test")))] == [
        "cached", "start", "done",
    ]  # fmt: skip
