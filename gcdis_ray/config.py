"""Configuration: closed, frozen models; YAML in; overrides by dotted path; one canonical form.

A config has four parts: what to read and compute (``stages``, in every artifact's key), the
``seed`` (in the key of stages with randomness), where it runs (``compute``, never in a key) and
where results go (``storage``, never in a key). ``oracle`` is a mark of how it was chosen.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
)

from gcdis_ray.errors import ConfigError

ENDPOINT = "URL of an S3-compatible service; none: AWS_ENDPOINT_URL, else AWS"

_DATA_GPUS = 0.25  # of an actor: four read, paste and encode for one GPU

ModelT = TypeVar("ModelT", bound=BaseModel)


class Closed(BaseModel):
    """Base of every config model: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)


class StageConfig(Closed):
    """Base of a stage's config. ``not_in_key`` names fields that change no result."""

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset()

    def key_fields(self) -> dict[str, Any]:
        """Plain data that enters the artifact's key."""
        return self.model_dump(mode="json", exclude=set(self.not_in_key()))


class TrainingConfig(Closed):
    """One training run. All of it changes the result, so all of it enters the key."""

    steps: int = Field(default=400, ge=1, le=10_000_000, description="optimiser steps")
    epochs: float | None = Field(
        default=None, gt=0, le=100_000, description="passes over the samples; if given, steps "
        "follow from it",
    )  # fmt: skip
    batch_size: int = Field(
        default=64, ge=1, le=65_536, description="samples per step over all workers"
    )
    micro_batches: int = Field(
        default=2,
        ge=1,
        le=1024,
        description="equal parts a step is computed in; workers share them out, so any worker "
        "count that divides it gives the same numbers",
    )
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0, le=10, description="peak learning rate")
    final_lr_ratio: float = Field(
        default=1e-3, ge=0, le=1, description="last over peak learning rate"
    )
    warmup: float = Field(
        default=0.05, ge=0, le=1, description="share of steps with linear warm-up"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="none on 1-d parameters")
    clip_norm: float = Field(default=5.0, ge=0, le=1e6, description="global gradient norm, 0 = off")
    precision: Literal["fp32", "bf16"] = "fp32"

    def over(self, num_samples: int) -> TrainingConfig:
        """The same training with its steps known: ``epochs`` passes over ``num_samples``."""
        if self.epochs is None:
            return self
        steps = max(1, math.ceil(self.epochs * num_samples / self.batch_size))
        return self.model_copy(update={"steps": steps, "epochs": None})

    def num_seen(self, num_samples: int) -> int:
        """Samples it learns from in all, of ``num_samples``, each as often as it is seen."""
        return self.over(num_samples).steps * self.batch_size


class ComputeConfig(Closed):
    """Where it runs. Nothing here enters an artifact's key."""

    runtime: Literal["local", "ray"] = "ray"
    address: str | None = Field(default=None, description="Ray address; none starts a local Ray")
    workers: int = Field(default=2, ge=1, le=4096, description="training workers")
    data_workers: int = Field(default=2, ge=1, le=65_536, description="actors of a data stage")
    threads: int = Field(default=1, ge=1, le=1024, description="torch threads per worker")
    decode_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="threads that make the next batches of a training worker while it computes; "
        "with several, three steps ahead",
    )
    gpus_per_worker: int = Field(default=0, ge=0, le=1, description="GPUs of a training worker")
    gpus_per_data_worker: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of a GPU that an actor of a data step holds while a network runs in it: "
        "reading and pasting are left to cores, so several actors keep one GPU busy. None: a "
        "quarter if training workers have GPUs, else 0. Steps without a network hold none",
    )
    strategy: Literal["ddp", "deepspeed"] = "ddp"
    zero_stage: Literal[1, 2] = Field(default=1, description="ZeRO stage of strategy deepspeed")
    slow_bf16: bool = Field(
        default=False,
        description="train in bf16 on a processor without bf16 units all the same: about 13 times "
        "slower there than fp32",
    )
    checkpoint_every_s: float = Field(
        default=30, ge=0, le=86_400, description="seconds between checkpoints"
    )
    max_failures: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="worker failures a stage survives; nodes that are taken away with notice are "
        "not counted",
    )
    num_cpus: int | None = Field(default=None, ge=1, description="logical CPUs of a local Ray")
    object_store_mb: int = Field(default=300, ge=80, le=1_000_000, description="of a local Ray")
    wait_s: float = Field(
        default=60, gt=0, le=86_400, description="seconds to wait for resources before saying so"
    )

    @field_validator("gpus_per_worker", mode="before")
    @classmethod
    def _whole_gpu(cls, value: Any) -> Any:
        """Ranks cannot share a GPU (NCCL refuses), and each uses one only."""
        if isinstance(value, int | float) and value not in (0, 1):
            raise ValueError(
                "a training worker has one GPU or none; several: raise compute.workers; a part: "
                "data steps take one, by compute.gpus_per_data_worker"
            )
        return value

    @property
    def data_gpus(self) -> float:
        """``gpus_per_data_worker``, or what stands for it where it is None."""
        if self.gpus_per_data_worker is not None:
            return self.gpus_per_data_worker
        return _DATA_GPUS if self.gpus_per_worker else 0.0


class RunConfig(Closed):
    """A whole run. Recipes add ``stages``, one closed model per node."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="of the run")
    recipe: str = "gcdis"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    storage: str = Field(
        default="runs/default", min_length=1, description="folder or s3://bucket/prefix"
    )
    storage_endpoint: str | None = Field(
        default=None, description=f"of a storage in a bucket: {ENDPOINT}"
    )
    continue_from: str | None = Field(
        default=None,
        min_length=1,
        description="a run that this one goes on from with new images: its config file, its "
        "storage, or <storage>/runs/<name>.json",
    )
    oracle: bool = Field(
        default=False, description="chosen by looking at ground truth; not in any key"
    )
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    stages: Any


def run_config_model(stages: Mapping[str, type[StageConfig]]) -> type[RunConfig]:
    """The model of a recipe's config file: every stage by name, each with its own defaults."""
    fields: dict[str, Any] = {
        name: (kind, Field(default_factory=kind) if _has_defaults(kind) else ...)
        for name, kind in stages.items()
    }
    section = create_model("Stages", __base__=Closed, **fields)
    return create_model("RecipeConfig", __base__=RunConfig, stages=(section, ...))


def _has_defaults(kind: type[BaseModel]) -> bool:
    return not any(field.is_required() for field in kind.model_fields.values())


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A config file as plain data; no tags, no objects."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), fix="see configs/ for examples"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from error
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"not valid YAML: {problem}", where=f"{path}{line}") from error
    if not isinstance(data, dict):
        raise ConfigError("a config is a mapping of keys to values", where=str(path))
    return data


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """``a.b.c=value`` on top of a config; the value is read as YAML. Returns new data."""
    import copy

    data = copy.deepcopy(data)
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ConfigError(
                f"override {text!r} has no value",
                where="--set",
                fix="for example --set stages.discover.gcdis.training.steps=500",
            )
        *parents, last = path.split(".")
        node = data
        for name in parents:
            if node.get(name) is None:  # absent, or a section without a line in it
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                raise ConfigError(f"{name!r} is a value, not a section", where=f"--set {path}")
        try:
            node[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"value {value!r} is not YAML", where=f"--set {path}") from None
    return data


def validate(model: type[ModelT], data: Mapping[str, Any], where: str) -> ModelT:
    """The config as a model, or one ConfigError that lists every problem and near names."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors(include_url=False)]
        shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        raise ConfigError(shown, where=where) from None


def _explain(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {path!r}, {_hint(model, [str(part) for part in item['loc']])}"
    if item["type"] == "missing":
        return f"missing key {path!r}"
    seen = item.get("input")
    value = f" (got {seen!r})" if isinstance(seen, str | int | float | bool | None) else ""
    message = item["msg"].removeprefix("Value error, ")
    return f"{path!r}: {message}{value}" if path else message


def _hint(root: type[BaseModel], loc: Sequence[str]) -> str:
    """The valid key that was meant by the unknown one at ``loc``: a slip of the pen, the same name
    in another section (the nearest one), or any likeness; else every key of the section."""
    name, section = loc[-1], loc[:-1]
    here = [path[-1] for path in _paths(root) if path[:-1] == list(section)]
    if near := difflib.get_close_matches(name, here, n=1, cutoff=0.8):
        return f"did you mean {near[0]!r}?"
    if elsewhere := [path for path in _paths(root) if path[-1] == name]:
        nearest = min(elsewhere, key=lambda path: (-_shared(path, section), len(path)))
        return f"did you mean {'.'.join(nearest)!r}?"
    if near := difflib.get_close_matches(name, here, n=1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(sorted(here))}"


def _shared(path: Sequence[str], section: Sequence[str]) -> int:
    """Number of leading parts two paths have in common."""
    pairs = zip(path, section, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(path), len(section)))


def _paths(model: type[BaseModel]) -> Iterator[list[str]]:
    """Every dotted key of a config, sections before what is in them."""
    for name, field in model.model_fields.items():
        yield [name]
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from ([name, *path] for path in _paths(kind))
