"""The config of a run that continues an earlier one, completed by what that one says.

Sections that the recipe inherits are copied, so that crops are cut, and vectors made, as they were.
What is noted of the run (``runs/<name>.json``) then says it all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcdis_ray.config import RunConfig, apply_overrides, read_yaml
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.graph import Graph, load_recipe, make_config
from gcdis_ray.run.opened import is_config, noted_config

RECIPE = "continued"  # of a config that names none


def settled(data: Mapping[str, Any], where: str, trail: tuple[Path, ...] = ()) -> dict[str, Any]:
    """``data`` of a config file with what it inherits; as it is if it continues no run.

    Args:
        trail: config files that are being read, each of which continues the next.

    Raises:
        ConfigError: the earlier run is missing or continues this one; its recipe takes nothing
            over; a section says another thing than the earlier run, or what is taken from it.
    """
    found, run = copy.deepcopy(dict(data)), data.get("continue_from")
    if run is None:
        return found
    if not isinstance(run, str):
        raise ConfigError(
            f"must be the address of a run (got {run!r})", where=f"{where}, continue_from"
        )
    recipe = found.setdefault("recipe", RECIPE)
    graph = load_recipe(str(recipe))
    if not any(hasattr(wired.node.stage, "EARLIER") for wired in graph.values()):
        raise ConfigError(
            f"recipe {recipe} takes nothing over from an earlier run",
            where=f"{where}, recipe",
            fix=f"leave it out, or set it to {RECIPE}",
        )
    here = Path(where).resolve()
    earlier = _config_of(run, (*trail, here))
    if (earlier.storage, earlier.name) == (found.get("storage", "runs/default"), found.get("name")):
        raise ConfigError(
            f"a run continues another one: {run} is this very run",
            where=f"{where}, continue_from",
            fix="name the earlier run there, or give this one another name or storage",
        )
    sections = found.get("stages")
    if sections is None or isinstance(sections, Mapping):  # if not, validation says so
        found["stages"] = dict(sections or {})
        _inherit(found["stages"], graph, earlier, where, str(recipe))
    return found


def _config_of(run: str, trail: tuple[Path, ...]) -> RunConfig:
    """The config of the earlier run; nothing of its data is looked at."""
    if not is_config(run):
        return noted_config(run)
    path = Path(run)
    if path.resolve() in trail:
        raise ConfigError(
            "these configs continue each other in a circle",
            where=f"{run}, continue_from",
            fix="let the first run continue none",
        )
    data = apply_overrides(read_yaml(path), ())
    data.setdefault("name", path.stem)
    return make_config(settled(data, run, trail), where=run)


def _inherit(
    sections: dict[str, Any], graph: Graph, earlier: RunConfig, where: str, recipe: str
) -> None:
    own = {wired.config_name for wired in graph.values()}
    for name in sections:
        if name not in own and hasattr(earlier.stages, name):
            raise ConfigError(
                f"recipe {recipe} has no stage {name}: what it gave is taken from the earlier run",
                where=f"{where}, stages.{name}",
                fix="leave it out",
            )
    for name, wired in graph.items():
        if not wired.node.inherits:
            continue
        section = getattr(earlier.stages, name, None)
        if section is None:
            raise ConfigError(
                f"the run that is to be continued has no stage {name}",
                where=f"{where}, continue_from",
                fix="name a run that has found objects and cut crops",
            )
        said = section.model_dump(mode="json", exclude=set(wired.node.own))
        mine = sections.get(name)
        if mine is None or isinstance(mine, Mapping):
            sections[name] = _merged(dict(mine or {}), said, f"stages.{name}", where)


def _merged(mine: dict[str, Any], said: Mapping[str, Any], path: str, where: str) -> dict[str, Any]:
    for key, value in said.items():
        if isinstance(value, Mapping) and isinstance(mine.get(key), Mapping):
            mine[key] = _merged(dict(mine[key]), value, f"{path}.{key}", where)
        elif mine.setdefault(key, value) != value:
            raise ConfigError(
                f"{path}.{key} is {value!r} in the run that is continued (got {mine[key]!r})",
                where=where,
                fix="leave it out: new crops have to be made as the earlier ones were",
            )
    return mine
