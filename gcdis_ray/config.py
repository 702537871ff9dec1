"""Configuration: closed, frozen models; YAML in; overrides by dotted path; one canonical form.

A config has four parts: what to read and compute (``stages``, in every artifact's key), the
``seed`` (in the key of stages with randomness), where it runs (``compute``, never in a key) and
where results go (``storage``, never in a key).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gcdis_ray.errors import ConfigError


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

    steps: int = Field(400, ge=1, le=10_000_000, description="optimiser steps")
    batch_size: int = Field(64, ge=1, le=65_536, description="samples per step over all workers")
    micro_batches: int = Field(
        2,
        ge=1,
        le=1024,
        description="equal parts a step is computed in; workers share them out, so any worker "
        "count that divides it gives the same numbers",
    )
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.05, gt=0, le=10, description="peak learning rate")
    final_lr_ratio: float = Field(1e-3, ge=0, le=1, description="last over peak learning rate")
    warmup: float = Field(0.05, ge=0, le=1, description="share of steps with linear warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="none on 1-d parameters")
    clip_norm: float = Field(5.0, ge=0, le=1e6, description="global gradient norm, 0 = off")
    precision: Literal["fp32", "bf16"] = "fp32"


class ComputeConfig(Closed):
    """Where it runs. Nothing here enters an artifact's key."""

    runtime: Literal["local", "ray"] = "ray"
    address: str | None = Field(None, description="Ray address; none starts a local Ray")
    workers: int = Field(2, ge=1, le=4096, description="training workers")
    data_workers: int = Field(2, ge=1, le=65_536, description="actors of a data stage")
    threads: int = Field(1, ge=1, le=1024, description="torch threads per worker")
    gpus_per_worker: float = Field(0, ge=0, le=64)
    strategy: Literal["ddp", "deepspeed"] = "ddp"
    zero_stage: Literal[1, 2] = Field(1, description="ZeRO stage of strategy deepspeed")
    checkpoint_every_s: float = Field(30, ge=0, description="seconds between checkpoints")
    max_failures: int = Field(3, ge=0, le=1000, description="worker failures a stage survives")
    num_cpus: int | None = Field(None, ge=1, description="logical CPUs of a local Ray")
    object_store_mb: int = Field(300, ge=80, le=1_000_000, description="of a local Ray")
    wait_s: float = Field(60, gt=0, description="seconds to wait for resources before saying so")
