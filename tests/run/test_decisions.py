"""The walker and what people decided: in the key of the stage that follows it, of later ones, and
of no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import PrivateAttr

from gcdis_ray.config import StageConfig, run_config_model, validate
from gcdis_ray.curating.acts import Act, Merge, Name, Reject, Undo, canonical, moves
from gcdis_ray.curating.log import append, read_log
from gcdis_ray.errors import CurationError
from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.run import graph
from gcdis_ray.run import pipeline as walker
from gcdis_ray.run.garbage import collect
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.run.summary import summaries
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import document

NODES = ("cut", "sort", "curated", "learn")


class Config(StageConfig):
    pass


class Completed(StageConfig):
    _acts: tuple[Any, ...] = PrivateAttr(())

    def key_fields(self) -> dict[str, Any]:
        return {"decisions": canonical(self._acts)}


def _decided(config: Completed, acts: Sequence[Act]) -> Completed:
    found = config.model_copy()
    found._acts = tuple(moves(acts))
    return found


def _stage(name: str, takes: tuple[str, ...], gives: str, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"Config": Config, **more},
        ID=name,
        VERSION=1,
        TAKES=takes,
        GIVES=(document(gives),),
        SEEDED=False,
        forecast=lambda config, inputs: Size(1, 1),
        run=lambda inputs, config, work: work.write_json(gives, config.key_fields()),
    )


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Pipeline]:
    stages = {
        "cut": _stage("cut", (), "crops"),
        "sort": _stage("sort", ("crops",), "assignments"),
        "curated": _stage(
            "curated", ("crops", "assignments"), "partition", Config=Completed, decided=_decided
        ),
        "learn": _stage("learn", ("partition",), "network"),
    }
    recipe = Recipe(tuple(Node(name, stage) for name, stage in stages.items()))
    monkeypatch.setattr(walker, "load_recipe", lambda name: graph.wire(recipe))
    model = run_config_model({name: stage.Config for name, stage in stages.items()})
    data = dict(name="t", storage=str(tmp_path / "s"), stages={})
    return lambda: Pipeline(validate(model, data, "test"))


def _keys(pipeline: Pipeline) -> dict[str, str]:
    return {name: node.key for name, node in pipeline.nodes.items()}


def _decide(pipeline: Pipeline, *acts: Act) -> None:
    append(pipeline.storage, pipeline.nodes["cut"].key, acts)


def _run(pipeline: Pipeline, until: str | None = None) -> list[str]:
    told: list[str] = []
    no_runtime = lambda: pytest.fail("none is needed")  # noqa: E731
    pipeline.run(no_runtime, lambda event: told.append(event.kind), until=until)
    return told


def test_a_name_is_in_no_key(opened):
    before = opened()
    _run(before)
    _decide(before, Name(1, "zebra"))
    assert _keys(opened()) == _keys(before)
    assert _run(opened()) == ["cached"] * 4
    assert summaries(opened()) == ["decided                1 named"]


def test_a_merge_is_in_the_key_of_who_follows_it_and_of_later_nodes(opened):
    before = opened()
    _run(before)
    _decide(before, Merge((3, 4)))
    merged = opened()
    assert [n for n in NODES if _keys(merged)[n] != _keys(before)[n]] == ["curated", "learn"]
    assert merged.why("curated") == "decisions changed"
    assert merged.why("learn") == "curated differs"
    assert _run(merged) == ["cached", "cached", "start", "done", "start", "done"]
    made = merged.artifact("curated")
    assert made is not None
    assert made.json("partition") == {"decisions": [{"act": "merge", "crops": [3, 4]}]}
    _decide(before, Undo())
    assert _keys(opened()) == _keys(before)
    assert _run(opened()) == ["cached"] * 4
    assert summaries(opened()) == []


def test_the_order_of_merges_is_in_no_key(opened):
    first = opened()
    _decide(first, Merge((3, 4)), Name(3, "a"), Merge((9, 8)))
    _decide(first, Merge((4, 20)))
    one = _keys(opened())
    _decide(first, Undo(), Undo(), Undo(), Undo())
    _decide(first, Merge((8, 9)), Merge((20, 4, 3)))
    assert _keys(opened()) == one


@pytest.mark.parametrize("broken", ['{"act": "merge"', '{"act": "undo"}'])
def test_a_broken_log_stops_all_but_earlier_nodes(opened, broken):
    key = opened().nodes["cut"].key
    before = _keys(opened())
    opened().storage.write(f"names/{key}/00000.json", broken.encode())
    pipeline = opened()
    assert _run(pipeline, "sort") == ["start", "done", "start", "done"]
    pipeline.need_decisions("sort")
    for until in ("curated", "learn", None):
        with pytest.raises(CurationError, match=r"00000\.json, line 1"):
            _run(pipeline, until)
        with pytest.raises(CurationError):
            pipeline.need_decisions(until)
    assert summaries(pipeline) == []
    assert _keys(pipeline)["sort"] == before["sort"]
    assert _keys(pipeline)["curated"] != before["curated"]


def test_garbage_collection_keeps_the_log(opened):
    pipeline = opened()
    _run(pipeline)
    _decide(pipeline, Reject(1))
    time.sleep(0.01)
    list(collect(pipeline.storage, NODES, 0, delete=True))
    assert read_log(pipeline.storage, pipeline.nodes["cut"].key) == [Reject(1)]
