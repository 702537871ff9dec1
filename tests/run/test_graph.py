"""From a recipe to a graph: who takes what of whom, what a recipe fixes, what is refused."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from gcdis_ray import plugins
from gcdis_ray.config import Closed, StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.run import graph
from gcdis_ray.run.graph import load_recipe, make_config, recipe_names, wire
from gcdis_ray.store.members import Member, Need, document, optional, sealed, tensors, whole

_IDS = itertools.count()


class Inner(Closed):
    mode: str = "plain"


class Config(StageConfig):
    rows: int = Field(2, ge=0)
    kind: str = "any"
    inner: Inner = Inner()


def stage(gives: Sequence[str | Member] = (), takes: Sequence[str | Need] = ()) -> Any:
    members = tuple(document(g) if isinstance(g, str) else g for g in gives)
    return SimpleNamespace(
        ID=f"toy_{next(_IDS)}",
        VERSION=1,
        TAKES=tuple(takes),
        GIVES=members,
        SEEDED=False,
        Config=Config,
        forecast=None,
        run=None,
    )


def wired(*nodes: Node) -> dict[str, dict[str, str]]:
    """What each node takes of which."""
    return {name: dict(node.takes) for name, node in wire(Recipe(nodes)).items()}


# ------------------------------------------------------------ wiring


def test_a_node_has_to_be_one():
    bare = stage(["a"])
    del bare.TAKES
    other = stage(["b"])
    other.Config = Inner
    paper, chain = Node("paper", stage(["a"])), Node("chain", stage(), configured_by="paper")
    for nodes, told in (
        ([Node("model_dump", stage())], "small letters"),
        ([Node("a.b", stage())], "small letters"),
        ([Node("bare", bare)], "does not say TAKES"),
        ([Node("two", stage(["a", "a"]))], r"declares \['a'\] twice"),
        ([paper, Node("two", other, configured_by="paper")], "needs the same Config"),
        ([paper, Node("two", stage(), configured_by="paper", fixes={"rows": 3})], "fixes nothing"),
        ([paper, chain, Node("two", stage(), configured_by="chain")], "no earlier node"),
    ):
        with pytest.raises(ConfigError, match=told) as error:
            wired(*nodes)
        assert error.value.where == f"node {nodes[-1].name}"


def test_what_is_sealed_by_name_is_sealed_beside_a_pattern():
    gives = [document("x_*"), document("x_truth", sealed=True)]
    with pytest.raises(ConfigError, match="sealed"):
        wired(Node("one", stage(gives)), Node("two", stage([], ["x_truth"])))
    assert wired(Node("one", stage(gives)), Node("two", stage([], ["x_rest"])))["two"]


def test_two_stages_of_one_identity_are_refused_and_one_stage_may_come_twice():
    one, other = stage(["a"]), stage(["b"])
    other.ID = one.ID
    with pytest.raises(ConfigError, match="is another stage's") as error:
        wired(Node("one", one), Node("two", other))
    assert error.value.where == "node two"
    assert set(wired(Node("one", one), Node("again", one))) == {"one", "again"}


def test_the_nearest_earlier_giver_is_taken():
    found = wired(
        Node("one", stage(["a", "b"])),
        Node("two", stage(["a"], ["a"])),
        Node("three", stage([], ["a", "b"])),
        Node("four", stage(["a"])),
    )
    assert found["two"] == {"a": "one"}  # not its own
    assert found["three"] == {"a": "two", "b": "one"}


def test_a_recipe_may_wire_by_hand():
    one, two = Node("one", stage(["a"])), Node("two", stage(["a"]))
    last = stage([], ["a"])
    assert wired(one, two, Node("last", last, wires={"a": "one"}))["last"] == {"a": "one"}
    for giver in ("nobody", "last", "bare"):
        nodes = one, two, Node("bare", stage()), Node("last", last, wires={"a": giver})
        with pytest.raises(ConfigError, match=f"'a' of {giver}, which is no earlier node") as error:
            wired(*nodes)
        assert error.value.where == "node last"
    with pytest.raises(ConfigError, match=r"wires \['b'\], which it does not take"):
        wired(one, Node("last", last, wires={"b": "one"}))


def test_what_nobody_gives_is_an_error_unless_it_is_optional():
    with pytest.raises(ConfigError, match="'a', which no node before it gives") as error:
        wired(Node("one", stage([], ["a"])), Node("two", stage(["a"])))
    assert error.value.where == "node one"
    found = wire(Recipe((Node("one", stage(["b"])), Node("two", stage([], [optional("a"), "b"])))))
    assert found["two"].takes == {"b": "one"}
    assert [want.member for want in found["two"].needs] == ["b"]


def test_a_pattern_gives_all_members_that_begin_so():
    found = wired(
        Node("one", stage([tensors("snapshot_*")])),
        Node("two", stage([], ["snapshot_12", optional("snap")])),
    )
    assert found["two"] == {"snapshot_12": "one"}


def test_names_are_unique_and_a_config_is_borrowed_from_an_earlier_node():
    with pytest.raises(ConfigError, match="two of this name") as error:
        wired(Node("one", stage()), Node("one", stage()))
    assert error.value.where == "node one"
    one, two = Node("one", stage()), Node("two", stage(), configured_by="one")
    assert [w.config_name for w in wire(Recipe((one, two))).values()] == ["one", "one"]
    with pytest.raises(ConfigError, match="configured by 'one', which is no earlier node"):
        wired(two, one)


# ------------------------------------------------------------ sealing

TRUTH = Node("truth", stage([document("truth", sealed=True), "open"]))


def test_a_sealed_member_is_refused_to_a_stage_without_the_right():
    with pytest.raises(ConfigError, match="may not take 'truth' of truth: it is sealed") as error:
        wired(TRUTH, Node("two", stage([], ["truth"])))
    assert error.value.where == "node two"
    with pytest.raises(ConfigError, match="sealed"):
        wired(TRUTH, Node("two", stage([], [optional("truth")])))
    assert wired(TRUTH, Node("two", stage([], ["open"])))["two"] == {"open": "truth"}


def test_what_a_stage_with_the_right_gives_is_sealed_as_well():
    judge = Node("judge", stage(["marks"], [sealed("truth")]))
    assert wire(Recipe((TRUTH, judge)))["judge"].opens_sealed
    with pytest.raises(ConfigError, match="may not take 'marks' of judge"):
        wired(TRUTH, judge, Node("three", stage([], ["marks"])))
    both = Node("three", stage([], [sealed("truth"), "marks"]))  # one right to all it takes
    assert wired(TRUTH, judge, both)["three"] == {"truth": "truth", "marks": "judge"}
    by_hand = Node("three", stage([], ["marks"]), wires={"marks": "judge"})
    with pytest.raises(ConfigError, match="sealed"):
        wired(TRUTH, judge, by_hand)


def test_the_whole_of_an_artifact_with_sealed_members_is_refused():
    with pytest.raises(ConfigError, match="may not take 'open' of truth"):
        wired(TRUTH, Node("two", stage([], [whole("open")])))
    judge = Node("judge", stage([], [whole("open"), sealed("truth")]))
    assert wired(TRUTH, judge)["judge"] == {"open": "truth", "truth": "truth"}


# ------------------------------------------------------------ fixes

FIXED = Recipe(
    (
        Node("one", stage(["a"]), fixes={"kind": "told", "inner.mode": "deep"}),
        Node("two", stage([], ["a"]), configured_by="one"),
    )
)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    """Makes things known as entry points of recipes, by name."""

    def make(**parts: Callable[[], Any]) -> None:
        points = [
            SimpleNamespace(name=name, value=f"paper:{name}", load=load, dist=None)
            for name, load in parts.items()
        ]
        monkeypatch.setattr(
            plugins, "entry_points", lambda group: points if group == "gcdis_ray.recipes" else []
        )

    graph._config_model.cache_clear()
    yield make
    graph._config_model.cache_clear()


def test_what_a_recipe_fixes_is_filled_in(offer):
    offer(paper=lambda: FIXED)
    assert "paper" in recipe_names()
    data = {"name": "x", "recipe": "paper", "stages": {"one": {"rows": 3}}}
    found = make_config(data, "x.yaml").stages.one
    assert (found.rows, found.kind, found.inner.mode) == (3, "told", "deep")
    assert data["stages"] == {"one": {"rows": 3}}  # as it was
    assert make_config({"name": "x", "recipe": "paper"}, "x.yaml").stages.one.kind == "told"
    said = {"one": {"kind": "told", "inner": {"mode": "deep"}}}
    again = make_config({"name": "x", "recipe": "paper", "stages": said}, "x.yaml")
    assert again.stages.one.inner.mode == "deep"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "other"}, r"paper fixes stages\.one\.kind to 'told' \(got 'other'\)"),
        ({"inner": {"mode": "flat"}}, r"fixes stages\.one\.inner\.mode to 'deep' \(got 'flat'\)"),
        ({"inner": 3}, r"stages\.one\.inner"),
    ],
)
def test_what_a_recipe_fixes_may_not_be_contradicted(offer, section, message):
    offer(paper=lambda: FIXED)
    with pytest.raises(ConfigError, match=message) as error:
        make_config({"name": "x", "recipe": "paper", "stages": {"one": section}}, "x.yaml")
    assert error.value.where == "x.yaml"


def test_a_node_that_borrows_its_config_has_no_section(offer):
    offer(paper=lambda: FIXED)
    with pytest.raises(ConfigError, match="two"):
        make_config({"name": "x", "recipe": "paper", "stages": {"two": {}}}, "x.yaml")


# ------------------------------------------------------------ recipes of other packages


def test_an_entry_point_that_cannot_be_loaded_is_named(offer):
    offer(paper=lambda: importlib.import_module("no_such_package"))
    with pytest.raises(ConfigError, match=r"recipe paper: paper:paper cannot be loaded.*no_such"):
        load_recipe("paper")


def test_an_entry_point_that_is_no_recipe_is_named(offer):
    offer(paper=lambda: {"nodes": []})
    with pytest.raises(ConfigError, match="names no Recipe") as error:
        load_recipe("paper")
    assert error.value.where == "recipe paper"
    with pytest.raises(ConfigError, match=r"unknown recipe 'other'\s.*'gcdis', .*'paper'"):
        load_recipe("other")
