"""From a recipe to a graph: finds recipes, wires what is taken to what is given, refuses leaks.

The rules: each member that a node takes is given by the nearest earlier node that has it, unless
the recipe says by which. What is given as sealed, and whatever a stage gives that may take sealed
members, may be taken only by stages that say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gcdis_ray.config import RunConfig, run_config_model, validate
from gcdis_ray.errors import ConfigError
from gcdis_ray.plugins import Plugins
from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.stages.stage import Stage
from gcdis_ray.store.members import Need, declared, need

_RECIPES = Plugins(
    "recipe",
    "gcdis_ray.recipes",
    lambda module: module.name != "recipe",
    group="gcdis_ray.recipes",
)


@dataclass(frozen=True)
class Wired:
    """A node whose needs are met.

    Args:
        takes: member -> name of the node that gives it; without those that nobody gives.
        opens_sealed: it may take sealed members, so all that it gives is sealed.
    """

    node: Node
    takes: Mapping[str, str]
    opens_sealed: bool

    @property
    def needs(self) -> list[Need]:
        """Of the members it takes."""
        wanted = (need(taken) for taken in self.node.stage.TAKES)
        return [want for want in wanted if want.member in self.takes]

    @property
    def config_name(self) -> str:
        """Whose section of the config is this node's."""
        return self.node.configured_by or self.node.name


_NAME = re.compile("[a-z][a-z0-9_]*")
_STAGE = ("ID", "VERSION", "TAKES", "GIVES", "SEEDED", "Config", "forecast", "run")

Graph = Mapping[str, Wired]  # by the node's name, in order


def recipe_names() -> list[str]:
    """Ours, and those of other installed packages."""
    return _RECIPES.names()


def load_recipe(name: str) -> Graph:
    """The graph of a recipe: a file of :mod:`gcdis_ray.recipes`, or an entry point.

    Raises:
        ConfigError: there is none, it cannot be loaded, or it breaks a rule.
    """
    recipe = _RECIPES.load(name, lambda module: module.RECIPE, where="recipe")
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            "its entry point names no Recipe", where=f"recipe {name}", fix="name a Recipe there"
        )
    return wire(recipe)


def wire(recipe: Recipe) -> Graph:
    """Meet every need.

    Raises:
        ConfigError: two nodes of one name, or two stages of one ID; a need that no earlier
            node meets; sealed members taken without the right to.
    """
    graph: dict[str, Wired] = {}
    owners: dict[str, Stage] = {}
    for node in recipe.nodes:
        _check_node(node, graph)
        if owners.setdefault(node.stage.ID, node.stage) is not node.stage:
            raise ConfigError(
                f"its stage's ID {node.stage.ID!r} is another stage's: their artifacts would mix",
                where=f"node {node.name}",
            )
        if node.name in graph:
            raise ConfigError("there are two of this name", where=f"node {node.name}")
        graph[node.name] = _wire(node, graph)
    return graph


def _check_node(node: Node, earlier: Graph) -> None:
    """What a node has to be by itself, and as one that another's section configures."""
    where = f"node {node.name}"
    if not _NAME.fullmatch(node.name) or node.name.startswith("model_"):
        raise ConfigError("a name is of small letters, digits and underscores", where=where)
    absent = [name for name in _STAGE if not hasattr(node.stage, name)]
    if absent:
        raise ConfigError(f"its stage does not say {', '.join(absent)}", where=where)
    names = [member.name for member in node.stage.GIVES]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"its stage declares {twice} twice", where=where)
    if node.configured_by is None:
        return
    owner = earlier.get(node.configured_by)
    if owner is None or owner.node.configured_by is not None:
        raise ConfigError(
            f"is configured by {node.configured_by!r}, which is no earlier node with a section",
            where=where,
        )
    if owner.node.stage.Config is not node.stage.Config or node.fixes:
        raise ConfigError(
            f"is configured by {node.configured_by!r}: it needs the same Config, and fixes nothing",
            where=where,
        )


def _wire(node: Node, earlier: Graph) -> Wired:
    where = f"node {node.name}"
    needs = [need(taken) for taken in node.stage.TAKES]
    strangers = set(node.wires) - {want.member for want in needs}
    if strangers:
        raise ConfigError(f"wires {sorted(strangers)}, which it does not take", where=where)
    opens_sealed = any(want.sealed for want in needs)
    takes: dict[str, str] = {}
    for want in needs:
        giver = _giver(want, node, earlier)
        if giver is None:
            if not want.optional:
                raise ConfigError(
                    f"takes {want.member!r}, which no node before it gives", where=where
                )
            continue
        if not opens_sealed and _is_sealed(want, earlier[giver]):
            raise ConfigError(
                f"may not take {want.member!r} of {giver}: it is sealed, for evaluation only",
                where=where,
            )
        takes[want.member] = giver
    return Wired(node, takes, opens_sealed)


def _giver(want: Need, node: Node, earlier: Graph) -> str | None:
    if (named := node.wires.get(want.member)) is not None:
        if named not in earlier or not declared(earlier[named].node.stage.GIVES, want.member):
            raise ConfigError(
                f"is to take {want.member!r} of {named}, which is no earlier node that gives it",
                where=f"node {node.name}",
            )
        return named
    for name in reversed(list(earlier)):
        if declared(earlier[name].node.stage.GIVES, want.member):
            return name
    return None


def _is_sealed(want: Need, giver: Wired) -> bool:
    gives = giver.node.stage.GIVES
    members = gives if want.whole else [m for m in gives if m.names(want.member)]
    return giver.opens_sealed or any(member.sealed for member in members)


def make_config(data: Mapping[str, Any], where: str) -> RunConfig:
    """A config from plain data, with what its recipe fixes, validated against the recipe."""
    recipe = str(data.get("recipe", "gcdis"))
    graph, model = load_recipe(recipe), _config_model(recipe)
    filled, sections = dict(data), data.get("stages")
    sections = {} if sections is None else sections
    if isinstance(sections, Mapping):  # if not, validation says so
        filled["stages"] = sections = dict(sections)
        for name, wired in graph.items():
            for path, value in wired.node.fixes.items():
                _fix(sections, [name, *path.split(".")], value, recipe, where)
    return validate(model, filled, where=where)


def _fix(section: dict[str, Any], path: list[str], value: Any, recipe: str, where: str) -> None:
    """Set a value that the recipe fixes; an error if the config says another."""
    *parents, last = path
    for name in parents:
        inner = section.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            return  # validation says what is wrong there
        section[name] = dict(inner or {})
        section = section[name]
    if section.setdefault(last, value) != value:
        raise ConfigError(
            f"recipe {recipe} fixes stages.{'.'.join(path)} to {value!r} (got {section[last]!r})",
            where=where,
            fix="leave it out, or choose another recipe",
        )


@lru_cache(maxsize=16)
def _config_model(recipe: str) -> type[RunConfig]:
    graph = load_recipe(recipe)
    own = {name: wired for name, wired in graph.items() if wired.node.configured_by is None}
    return run_config_model({name: wired.node.stage.Config for name, wired in own.items()})
