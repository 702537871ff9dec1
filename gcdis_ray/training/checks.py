"""Checks of a training run that need neither torch nor Ray: for `plan`, before anything starts."""

from __future__ import annotations

from importlib.util import find_spec

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.training.processor import has_bf16_units


def num_workers(compute: ComputeConfig) -> int:
    """Training workers that really run: the local runtime trains in its own process."""
    return compute.workers if compute.runtime == "ray" else 1


def check_strategy(compute: ComputeConfig) -> None:
    """Raise ConfigError unless the strategy's package is installed."""
    if compute.strategy == "deepspeed" and find_spec("deepspeed") is None:
        raise ConfigError(
            "the package deepspeed is not installed: it is built on Linux only, for Python up to "
            "3.13",
            where="compute.strategy",
            fix="set compute.strategy=ddp, which gives the same numbers within rounding, or run "
            "`make setup` with a Python that has it",
        )


def check_bf16(training: TrainingConfig, compute: ComputeConfig, *, where: str) -> None:
    """Raise ConfigError if this machine's processor would train in bf16 and has no units for it,
    unless the config wants that. To be asked where the training runs.

    Args:
        where: the config key that holds ``training``.
    """
    concerned = training.precision == "bf16" and not compute.gpus_per_worker
    if concerned and not compute.slow_bf16 and has_bf16_units() is False:
        raise ConfigError(
            "this processor has no units for bf16: a step takes about 13 times as long as in fp32",
            where=f"{where}.precision",
            fix="use precision: fp32, give workers GPUs (compute.gpus_per_worker), or set "
            "compute.slow_bf16=true",
        )


def check_workers(training: TrainingConfig, compute: ComputeConfig, *, where: str) -> None:
    """Raise ConfigError unless the workers can share the parts of a step evenly.

    Args:
        where: the config key that holds ``training``, such as ``stages.discover.gcdis.training``.
    """
    workers, parts = num_workers(compute), training.micro_batches
    if training.batch_size % parts:
        raise ConfigError(
            f"batch_size {training.batch_size} does not split into micro_batches {parts}",
            where=where,
            fix=f"set {where}.batch_size to a multiple of {parts}",
        )
    if parts % workers:
        divisors = [n for n in range(1, parts + 1) if parts % n == 0]
        raise ConfigError(
            f"{workers} workers cannot share {parts} parts of a step evenly",
            where="compute.workers",
            fix=f"set compute.workers to one of {divisors[-8:]}, or {where}.micro_batches to a "
            f"multiple of {workers} (changes the result)",
        )
