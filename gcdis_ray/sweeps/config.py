"""A sweep file: which fields of a config to vary, over what, and what is best. No torch, no Ray."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gcdis_ray.config import (
    Closed,
    RunConfig,
    StageConfig,
    apply_overrides,
    read_yaml,
    validate,
)
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.checks import before_run
from gcdis_ray.run.pipeline import load_recipe, make_config
from gcdis_ray.sweeps.objectives import CLUSTERED_BY, OBJECTIVES, Objective
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


class SweepHoldOutConfig(Closed):
    """Known classes whose labels trials hide from discovery, for objective holdout_accuracy."""

    share: float = Field(0.2, gt=0, le=0.9, description="of the known classes, hidden")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the choice of hidden classes")
    every: int = Field(100, ge=1, le=10_000_000, description="training steps between measurements")


class SweepConfig(Closed):
    """A sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="of the sweep")
    base: str = Field(description="config file that is varied, relative to the sweep file")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="sections laid over the base, in the chosen config, too"
    )
    space: dict[str, Dimension] = Field(
        min_length=1, description="config field by dotted path -> its values"
    )
    objective: str = Field(description="what is best: see gcdis_ray/sweeps/objectives.py")
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
    hold_out: SweepHoldOutConfig = SweepHoldOutConfig.model_validate({})
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

    @property
    def goal(self) -> Objective:
        return OBJECTIVES[self.objective]


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, RunConfig]:
    """A sweep file with overrides, and the base config, both checked against each other.

    Raises:
        ConfigError: also for a field or value the config does not have, an unknown objective, and
            an objective that looks at ground truth without ``oracle: true``.
    """
    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", Path(path).stem)
    spec = validate(SweepConfig, data, where=str(path))
    _check_objective(spec, str(path))
    check_trackers(spec.trackers, str(path))
    base = base_config(spec, Path(path).parent)
    before_run(base, stages_of(spec, base))
    check_space(spec, base, str(path))
    return spec, base


def base_config(spec: SweepConfig, folder: Path) -> RunConfig:
    file = folder / spec.base
    data = _merged(read_yaml(file), spec.overrides)
    if spec.storage is not None:
        data["storage"] = spec.storage
    data.setdefault("name", file.stem)
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
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{name!r} is a value, not a section", where=f"{where}: {path}")
        node[last] = deepcopy(value)
    return make_config(data, where=where)


def _check_objective(spec: SweepConfig, where: str) -> None:
    if spec.objective not in OBJECTIVES:
        near = difflib.get_close_matches(spec.objective, OBJECTIVES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(OBJECTIVES)}"
        raise ConfigError(
            f"unknown objective {spec.objective!r}", where=f"{where}: objective", fix=hint
        )
    if spec.goal.oracle and not spec.oracle:
        fair = ", ".join(name for name, goal in OBJECTIVES.items() if not goal.oracle)
        raise ConfigError(
            f"{spec.objective} looks at the ground truth of unlabeled or evaluation data: what it "
            "chooses cannot be evaluated fairly on that data",
            where=f"{where}: objective",
            fix=f"use one of {fair}; or set oracle: true, and the results will say so",
        )
    if spec.scheduler.kind == "asha" and spec.goal.live is None:
        raise ConfigError(
            f"{spec.objective} is known at the end only, so no trial can be ended early",
            where=f"{where}: scheduler",
            fix="set scheduler: {kind: none}",
        )


def fixed_values(spec: SweepConfig) -> dict[str, Any]:
    """What holds in every trial and not in the chosen config."""
    if spec.objective != "holdout_accuracy":
        return {}
    fields = spec.hold_out.model_dump(mode="json")
    return {f"stages.discover.hold_out.{name}": value for name, value in fields.items()}


def stage_of(path: str) -> str:
    return path.split(".")[1]


def stages_of(spec: SweepConfig, base: RunConfig) -> list[str]:
    """Stages with a config that a trial needs: those up to the objective's."""
    names = list(type(base.stages).model_fields)
    return names[: names.index(spec.goal.stage) + 1]


def depends_on(spec: SweepConfig, config: RunConfig) -> dict[str, dict[str, Any]]:
    """What the objective can depend on, by stage: what is in the keys of the artifacts it is
    measured on, or read to cluster. Of stages that read outside data, all of their config."""
    recipe, found = load_recipe(config.recipe), {}
    for name in stages_of(spec, config):
        stage: StageConfig = getattr(config.stages, name)
        if spec.goal.clusters and name == spec.goal.stage:
            found[name] = stage.model_dump(mode="json", include=set(CLUSTERED_BY))
        elif hasattr(recipe[name], "source"):  # where the data is, is not in the key
            found[name] = stage.model_dump(mode="json")
        else:
            found[name] = stage.key_fields()
    return found


def check_space(spec: SweepConfig, base: RunConfig, where: str) -> None:
    """Raise ConfigError unless every field exists, can matter to the objective, and its extremes
    are allowed: with the base's values of the others, or their lowest, or highest."""
    stages, needed = list(type(base.stages).model_fields), stages_of(spec, base)
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
                f"{spec.objective} is known after stage {spec.goal.stage}, before {parts[1]}",
                where=f"{where}: space: {path}",
                fix="take this field out, or choose an objective of a later stage",
            )
    fixed = fixed_values(spec)
    for path in spec.space:
        if any(f"{name}.".startswith(f"{path}.") for name in fixed):
            raise ConfigError(
                f"{spec.objective} needs the same in every trial",
                where=f"{where}: space: {path}",
                fix="take this field out; the sweep's own hold_out says what it is",
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
            if len(seen) < 2 and (found := depends_on(spec, config)) not in seen:
                seen.append(found)
        if len(seen) < 2 and len(dimension.extremes()) > 1:
            raise ConfigError(
                f"{spec.objective} is the same for every value",
                where=f"{where}: space: {path}",
                fix="take this field out, or choose an objective that depends on it",
            )
    if spec.goal.clusters:
        _check_num_novel(spec, base, where)


def _check_num_novel(spec: SweepConfig, base: RunConfig, where: str) -> None:
    path = "stages.count.num_novel"
    dimension = spec.space.get(path)
    if dimension is None and base.stages.count.num_novel is None:
        raise ConfigError(
            f"{spec.objective} clusters into known + {path} classes, which nothing gives",
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
