"""A sweep file: which fields of a config to vary, over what, and what is best. No torch, no Ray."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from gcdis_ray.config import Closed, RunConfig, apply_overrides, read_yaml, validate
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.checks import before_run, section
from gcdis_ray.run.graph import load_recipe, make_config
from gcdis_ray.stages.stage import offered
from gcdis_ray.sweeps.objectives import Goal, goals
from gcdis_ray.sweeps.trackers import check_trackers

Values = Mapping[str, Any]  # dotted path -> value


class Listed(Closed):
    """One of some values: anything YAML can write."""

    kind: Literal["choice", "grid"] = Field(
        description="choice: any of them; grid: each in turn, with searcher grid"
    )
    values: tuple[Any, ...] = Field(min_length=1, max_length=10_000)

    def extremes(self) -> list[Any]:
        return list(self.values)


class Span(Closed):
    """A real number; uniform in itself or in its logarithm."""

    kind: Literal["uniform", "log_uniform"]
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.kind == "log_uniform" and self.low <= 0:
            raise ValueError("low must be above 0 for a logarithm")
        return self

    def extremes(self) -> list[float]:
        return [self.low, self.high]


class IntSpan(Closed):
    """A whole number, both ends included; uniform in itself or in its logarithm."""

    kind: Literal["int", "log_int"]
    low: int
    high: int
    step: int = Field(1, ge=1, description="from one value to the next; 1 for log_int")

    @model_validator(mode="after")
    def _ordered(self) -> IntSpan:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.kind == "log_int" and (self.low < 1 or self.step != 1):
            raise ValueError("log_int needs low of at least 1 and step 1")
        return self

    def extremes(self) -> list[int]:
        return [self.low, self.high]


Dimension = Annotated[Listed | Span | IntSpan, Field(discriminator="kind")]


class SchedulerConfig(Closed):
    """Which trials are ended early. asha: at ``min_steps`` training steps, and every time they are
    ``reduction``-fold, a trial goes on if it is among the best 1/``reduction`` of those that got
    there before it (asynchronous successive halving, Li et al. 2020)."""

    kind: Literal["asha", "none"] = "none"
    min_steps: int = Field(
        100, ge=1, le=10_000_000, description="training steps no trial is denied"
    )
    reduction: float = Field(3.0, gt=1, le=100)


class SweepConfig(Closed):
    """A sweep file. :func:`sweep_model` adds sections that objectives of a recipe have."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="of the sweep")
    base: str = Field(description="config file that is varied, relative to the sweep file")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="sections laid over the base, in the chosen config, too"
    )
    space: dict[str, Dimension] = Field(
        min_length=1, description="config field by dotted path -> its values"
    )
    objective: str = Field(description="what is best, of what the recipe's stages offer")
    trials: int | None = Field(
        None, ge=1, le=1_000_000, description="none: 20, or the whole grid with searcher grid"
    )
    seeds: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="a trial's objective is the mean over them; none: the base config's seed",
    )
    searcher: Literal["optuna", "random", "grid"] = "optuna"
    scheduler: SchedulerConfig = SchedulerConfig.model_validate({})
    max_concurrent: int | None = Field(
        None, ge=1, le=10_000, description="trials at a time; none: as many as the cluster holds"
    )
    oracle: bool = Field(
        False, description="allow an objective that looks at ground truth: not a fair choice"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the searcher")
    storage: str | None = Field(None, description="none: the base config's")
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="besides TensorBoard; each is an extra to install"
    )

    @model_validator(mode="after")
    def _fits(self) -> SweepConfig:
        kinds = {dimension.kind for dimension in self.space.values()}
        if self.searcher == "grid":
            if kinds & {"uniform", "log_uniform", "log_int"}:
                raise ValueError("searcher grid takes dimensions of kind grid, choice and int only")
            if self.trials is not None:
                raise ValueError("searcher grid tries everything: leave out trials")
        elif "grid" in kinds:
            raise ValueError("a dimension of kind grid needs searcher: grid (else use choice)")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given twice")
        if self.seeds is not None and not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ValueError("seeds are from 0 to 2147483647")
        return self


def sweep_model(found: Iterable[Goal]) -> type[SweepConfig]:
    """The model of a sweep file whose objective is one of these."""
    sections = [held for goal in found if (held := goal.objective.section)]
    fields: dict[str, Any] = {
        held.name: (held.model, Field(default_factory=held.model)) for held in sections
    }
    return create_model("SweepFile", __base__=SweepConfig, **fields)


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, RunConfig]:
    """A sweep file with overrides, and the base config, both checked against each other.

    Raises:
        ConfigError: also for a field or value the config does not have, an objective that the
            recipe does not offer, and one that looks at ground truth without ``oracle: true``.
    """
    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", Path(path).stem)
    recipe = _recipe(data, Path(path).parent)
    model = SweepConfig if recipe is None else sweep_model(goals(recipe).values())
    spec = validate(model, data, where=str(path))
    base = base_config(spec, Path(path).parent)
    goal = _checked_goal(spec, base, str(path))
    check_trackers(spec.trackers, str(path))
    before_run(base, nodes_of(goal, base))
    check_space(spec, base, str(path))
    return spec, base


def _recipe(data: Mapping[str, Any], folder: Path) -> str | None:
    """The recipe that a sweep file is about; None if validation will say what is wrong."""
    base, over = data.get("base"), data.get("overrides") or {}
    if not isinstance(base, str) or not isinstance(over, Mapping):
        return None
    default = RunConfig.model_fields["recipe"].default
    return str(_merged(read_yaml(folder / base), over).get("recipe", default))


def base_config(spec: SweepConfig, folder: Path) -> RunConfig:
    file = folder / spec.base
    data = _merged(read_yaml(file), spec.overrides)
    if spec.storage is not None:
        data["storage"] = spec.storage
    data.setdefault("name", file.stem)
    if data.get("continue_from") is not None:
        raise ConfigError(
            "a run that continues another one fits nothing that a sweep could try values of",
            where=f"{file}, continue_from",
            fix="sweep the earlier run",
        )
    return make_config(data, where=f"{file}, with overrides" if spec.overrides else str(file))


def _merged(data: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` with every value of ``over`` in its place; sections are merged, lists replaced."""
    merged = deepcopy(dict(data))
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[name] = _merged(below, value)
        else:
            merged[name] = deepcopy(value)
    return merged


def with_values(config: RunConfig, values: Values, where: str) -> RunConfig:
    """The config with other values at some dotted paths, validated as a whole."""
    data = config.model_dump(mode="json")
    for path, value in values.items():
        *parents, last = path.split(".")
        node = data
        for name in parents:
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                raise ConfigError(f"{name!r} is a value, not a section", where=f"{where}: {path}")
        node[last] = deepcopy(value)
    return make_config(data, where=where)


def goal_of(spec: SweepConfig, base: RunConfig) -> Goal:
    """The objective at its place in the base's recipe.

    Raises:
        ConfigError: no stage of the recipe offers it.
    """
    found = goals(base.recipe)
    if spec.objective not in found:
        near = difflib.get_close_matches(spec.objective, found, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown objective {spec.objective!r}",
            where="objective",
            fix=f"{hint}recipe {base.recipe} offers {', '.join(found) or 'none'}",
        )
    return found[spec.objective]


def _checked_goal(spec: SweepConfig, base: RunConfig, where: str) -> Goal:
    try:
        goal = goal_of(spec, base)
    except ConfigError as error:
        raise error.at(f"{where}: objective") from None
    if goal.oracle and not spec.oracle:
        fair = ", ".join(n for n, other in goals(base.recipe).items() if not other.oracle)
        raise ConfigError(
            f"{spec.objective} looks at the ground truth of unlabeled or evaluation data: what it "
            "chooses cannot be evaluated fairly on that data",
            where=f"{where}: objective",
            fix=f"use one of {fair}; or set oracle: true, and the results will say so"
            if fair
            else "set oracle: true, and the results will say so",
        )
    if spec.scheduler.kind == "asha" and goal.objective.live is None:
        raise ConfigError(
            f"{spec.objective} is known at the end only, so no trial can be ended early",
            where=f"{where}: scheduler",
            fix="set scheduler: {kind: none}",
        )
    return goal


def fixed_values(spec: SweepConfig, goal: Goal) -> dict[str, Any]:
    """What holds in every trial and not in the chosen config."""
    held = goal.objective.section
    if held is None:
        return {}
    fields = getattr(spec, held.name).model_dump(mode="json")
    return {f"{goal.section}.{held.name}.{name}": value for name, value in fields.items()}


def chosen_values(goal: Goal) -> dict[str, Any]:
    """What the chosen config says in place of :func:`fixed_values`."""
    held = goal.objective.section
    if held is None:
        return {}
    return {f"{goal.section}.{held.name}.{name}": value for name, value in held.chosen.items()}


def stage_of(path: str) -> str:
    return path.split(".")[1]


def nodes_of(goal: Goal, base: RunConfig) -> list[str]:
    """Nodes whose config a trial needs: those up to the objective's."""
    names = list(load_recipe(base.recipe))
    return names[: names.index(goal.node) + 1]


def depends_on(goal: Goal, config: RunConfig) -> dict[str, dict[str, Any]]:
    """What the objective can depend on, by stage: what is in the keys of the artifacts it is
    measured on, or read by its probe. Of stages that read outside data, all of their config."""
    graph, found = load_recipe(config.recipe), {}
    for name in nodes_of(goal, config):
        wired, stage = graph[name], section(config, graph[name])
        if goal.objective.probe and name == goal.node:
            found[name] = stage.model_dump(mode="json", include=set(goal.objective.probe.fields))
        elif offered(wired.node.stage, "source"):  # where the data is, is not in the key
            found[name] = stage.model_dump(mode="json")
        else:
            found[name] = stage.key_fields()
    return found


def check_space(spec: SweepConfig, base: RunConfig, where: str) -> None:
    """Raise ConfigError unless every field exists, can matter to the objective, and its extremes
    are allowed: with the base's values of the others, or their lowest, or highest."""
    goal, stages = goal_of(spec, base), list(type(base.stages).model_fields)
    needed = nodes_of(goal, base)
    for path in spec.space:
        parts = path.split(".")
        if parts[0] != "stages" or len(parts) < 3 or parts[1] not in stages:
            names = [".".join(known) for known in _fields(base)]
            near = difflib.get_close_matches(path, names, n=1) if parts[0] == "stages" else []
            raise ConfigError(
                f"{path!r} is not a field of a stage",
                where=f"{where}: space",
                fix=f"did you mean {near[0]!r}?" if near else "use stages.STAGE.FIELD, where STAGE "
                f"is one of {', '.join(stages)}",
            )  # fmt: skip
        if parts[1] not in needed:
            raise ConfigError(
                f"{spec.objective} is known after stage {goal.node}, before {parts[1]}",
                where=f"{where}: space: {path}",
                fix="take this field out, or choose an objective of a later stage",
            )
    fixed = fixed_values(spec, goal)
    for path in spec.space:
        if held := next((name for name in fixed if f"{name}.".startswith(f"{path}.")), None):
            raise ConfigError(
                f"{spec.objective} needs the same in every trial",
                where=f"{where}: space: {path}",
                fix=f"take this field out; the sweep's own {held.split('.')[2]} says what it is",
            )
    contexts: list[Values] = [
        fixed,
        {path: d.extremes()[0] for path, d in spec.space.items()} | fixed,
        {path: d.extremes()[-1] for path, d in spec.space.items()} | fixed,
    ]
    for path, dimension in spec.space.items():
        seen = list[dict[str, Any]]()  # different things the objective depends on
        for value in dimension.extremes():
            problems = []
            for others in contexts:
                try:
                    config = with_values(base, {**others, path: value}, f"{where}: space")
                    before_run(config, needed)
                    break
                except ConfigError as error:
                    problems.append(error)
            else:
                raise problems[0]
            if len(seen) < 2 and (found := depends_on(goal, config)) not in seen:
                seen.append(found)
        if len(seen) < 2 and len(dimension.extremes()) > 1:
            raise ConfigError(
                f"{spec.objective} is the same for every value",
                where=f"{where}: space: {path}",
                fix="take this field out, or choose an objective that depends on it",
            )
    if goal.objective.probe:
        for name, reason in goal.objective.probe.whole_numbers.items():
            path = f"{goal.section}.{name}"
            given = getattr(getattr(base.stages, stage_of(path)), name) is not None
            _check_whole(spec, path, reason.format(path), given, where)


def _check_whole(spec: SweepConfig, path: str, reason: str, given: bool, where: str) -> None:
    """Raise ConfigError unless the base gives the field, or the space whole numbers for it."""
    dimension = spec.space.get(path)
    if dimension is None and not given:
        raise ConfigError(
            f"{spec.objective} {reason}, which nothing gives",
            where=f"{where}: space",
            fix=f"add {path} to the space, or to overrides",
        )
    wrong = [v for v in dimension.extremes() if type(v) is not int] if dimension else []
    if wrong:
        raise ConfigError(
            f"{spec.objective} needs whole numbers (got {wrong[0]!r})",
            where=f"{where}: space: {path}",
            fix="use kind int, or values like [2, 4, 8]",
        )


def _fields(config: Closed) -> Iterator[list[str]]:
    for name in type(config).model_fields:
        value = getattr(config, name)
        yield [name]
        if isinstance(value, Closed):
            yield from ([name, *rest] for rest in _fields(value))
