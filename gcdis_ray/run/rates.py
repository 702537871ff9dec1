"""How long a run will take, and what it will cost: workloads of its stages over rates.

Rates come from files, as ``benchmarks/gpu_smoke.py`` writes them or as somebody estimates them.
Left out are the start of workers, and what a stage does once whatever the number of its rows
(placing, prototypes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gcdis_ray.config import Closed, ComputeConfig, read_yaml, validate
from gcdis_ray.errors import ConfigError
from gcdis_ray.store.artifacts import Workload

Place = Literal["gpu", "cpu", "driver"]


class Rate(Closed):
    """How many a second one of what does it: a GPU; a core, which is a worker without one; or the
    driver, of which there is one however large the cluster."""

    per_s: float = Field(gt=0, le=1e9)
    by: Place
    why: str = Field("", description="where the number comes from")


class Measured(Closed):
    """What else was seen of a stage: nothing is computed from it."""

    seconds: float = Field(ge=0, description="wall clock, start and end included")
    data_wait: float | None = Field(None, ge=0, le=1, description="of its training, share")
    gpu_memory_bytes: int | None = Field(None, ge=0, description="the most that torch took")


class StageRates(Closed):
    """Of the units of a stage's :class:`~gcdis_ray.store.artifacts.Workload`."""

    samples: Rate | None = None
    rows: Rate | None = None
    measured: Measured | None = None


class Rates(Closed):
    """A file of rates."""

    what: str = Field(min_length=1, description="of which machine and networks, and how known")
    estimated: bool = Field(description="not measured")
    stages: dict[str, StageRates] = Field(description="by the stages' IDs")


def read_rates(paths: Sequence[str | Path]) -> Rates:
    """Files of rates as one: of two rates for the same, that of the later file.

    Raises:
        ConfigError: a file that is not there or says something else.
    """
    files = [validate(Rates, read_yaml(path), where=str(path)) for path in paths]
    stages: dict[str, StageRates] = {}
    for file in files:
        for name, rates in file.stages.items():
            told = {kind: getattr(rates, kind) for kind in StageRates.model_fields}
            changed = {kind: rate for kind, rate in told.items() if rate is not None}
            stages[name] = stages.get(name, StageRates()).model_copy(update=changed)
    return Rates(
        what="; ".join(file.what for file in files),
        estimated=any(file.estimated for file in files),
        stages=stages,
    )


@dataclass(frozen=True)
class Hours:
    """Of a stage: its training and its data steps. None: no rate is known."""

    training: float | None
    steps: float | None

    @property
    def all(self) -> float | None:
        if self.training is None or self.steps is None:
            return None
        return self.training + self.steps


def hours(work: Workload, rates: StageRates | None, compute: ComputeConfig) -> Hours:
    """A rate of GPUs is none for a run without them, and a rate of cores none for a training on
    GPUs."""
    gpus = compute.workers * compute.gpus_per_worker
    held = math.ceil(compute.data_workers * compute.data_gpus)  # shares of one GPU fill it first
    trainers: Mapping[Place, int] = {"gpu": gpus, "cpu": 0 if gpus else compute.workers}
    workers: Mapping[Place, int] = {
        "gpu": min(gpus, held) if gpus else held, "cpu": compute.data_workers, "driver": 1,
    }  # fmt: skip
    rates = rates or StageRates()
    return Hours(
        _hours(work.samples, rates.samples, trainers), _hours(work.rows, rates.rows, workers)
    )


def _hours(amount: int, rate: Rate | None, places: Mapping[Place, int]) -> float | None:
    if not amount:
        return 0.0
    if rate is None or not places.get(rate.by):
        return None
    return amount / (rate.per_s * places[rate.by]) / 3600


@dataclass(frozen=True)
class Bill:
    """What stages that are still to run come to.

    Attributes:
        hours: of those whose rates are known.
        without: the others.
        cost: of these hours, if the cluster has a price.
    """

    hours: float
    without: tuple[str, ...]
    cost: float | None


def bill(entries: Sequence[Mapping[str, Any]], price_per_hour: float | None) -> Bill:
    """Args:
    entries: with ``name`` and ``hours``, which is None where nobody knows.
    price_per_hour: of all machines together: stages come one after another, and all are held.
    """
    total = sum(entry["hours"] or 0.0 for entry in entries)
    without = tuple(entry["name"] for entry in entries if entry["hours"] is None)
    return Bill(total, without, None if price_per_hour is None else price_per_hour * total)


def check_price(price_per_hour: float | None, rates: Sequence[str]) -> None:
    """Raises:
    ConfigError: no price, or one without rates.
    """
    if price_per_hour is None:
        return
    if not rates:
        raise ConfigError(
            "a price says nothing without rates",
            where="--price-per-hour",
            fix="add --rates FILE, for example benchmarks/rates_a100.yaml",
        )
    if not 0 <= price_per_hour < float("inf"):
        raise ConfigError("must be 0 or more", where="--price-per-hour", fix="give a number")
