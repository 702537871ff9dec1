"""What must hold before a run starts, and what ``gcdis doctor`` looks at."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel

from gcdis_ray.config import RunConfig, StageConfig, TrainingConfig
from gcdis_ray.errors import ConfigError, GcdisError
from gcdis_ray.run.graph import Wired, load_recipe
from gcdis_ray.stages.stage import offered
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.checks import check_bf16, check_strategy, check_workers
from gcdis_ray.training.processor import has_bf16_units

NEEDED = ("torch", "torchvision", "ray", "pyarrow", "pycocotools", "boto3")
# Package -> how to have it.
OPTIONAL = {
    "faiss": "uv sync --extra cpu, or --extra gpu",
    "deepspeed": "make setup, on Linux with Python up to 3.13",
}
PYTHONS = ((3, 11), (3, 14))  # the oldest and the newest
MIN_FREE_DISK_GB = 5.0


def before_run(config: RunConfig, nodes: Collection[str] | None = None) -> None:
    """Everything that can be wrong with a config and does not need Ray to find out.

    Args:
        nodes: those that are to run; None: all.

    Raises:
        ConfigError: a combination that cannot run, or a file that is missing or of another format,
            with the field to change.
    """
    graph = load_recipe(config.recipe)
    for name in graph if nodes is None else nodes:
        wired = graph[name]
        own = section(config, wired)
        if wired.node.configured_by is None:
            for path, training in trainings(own, f"stages.{name}"):
                check_strategy(config.compute)
                check_workers(training, config.compute, where=path)
        if check := offered(wired.node.stage, "check"):
            givers = {m: section(config, graph[giver]) for m, giver in wired.takes.items()}
            check(own, givers)


def too_slow(config: RunConfig, nodes: Collection[str] | None = None) -> ConfigError | None:
    """What would take much longer than anyone wants, with what to change: a training in bf16 on a
    processor that has no units for it. Of a cluster, its own machines say so when they begin.

    Args:
        nodes: those that are to run; None: all.
    """
    from gcdis_ray.runtime.ray_session import cluster_address

    if config.compute.runtime == "ray" and cluster_address(config.compute):
        return None
    graph = load_recipe(config.recipe)
    for name in graph if nodes is None else nodes:
        if graph[name].node.configured_by is None:
            for path, training in trainings(section(config, graph[name]), f"stages.{name}"):
                try:
                    check_bf16(training, config.compute, where=path)
                except ConfigError as error:
                    return error
    return None


def section(config: RunConfig, wired: Wired) -> StageConfig:
    """A node's part of the config."""
    return getattr(config.stages, wired.config_name)


def trainings(config: BaseModel, path: str) -> Iterator[tuple[str, TrainingConfig]]:
    """Every training in a config, with its dotted path."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, TrainingConfig):
            yield f"{path}.{name}", value
        elif isinstance(value, BaseModel):
            yield from trainings(value, f"{path}.{name}")


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str


def doctor(config: RunConfig | None) -> Iterator[Check]:
    """Looks at Python, packages, the machine and its accelerator, storage and Ray in turn."""
    supported = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    wanted = " to ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    yield Check("python", "ok" if supported else "fail", f"{sys.version.split()[0]} ({wanted})")
    for package in NEEDED:
        try:
            yield Check(package, "ok", version(package))
        except PackageNotFoundError:
            yield Check(package, "fail", "not installed; run: make setup")
    for package, how in OPTIONAL.items():
        if importlib.util.find_spec(package) is not None:
            yield Check(package, "ok", "installed")
        else:
            yield Check(package, "warn", f"not installed (optional): {how}")
    yield from _machine()
    if config is not None:
        yield from _storage(config)
    yield _ray(config)


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok" if (cores or 1) >= 2 else "warn", f"{cores} (2 or more)")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Check("memory", "ok" if memory > 7 else "warn", f"{memory:.1f} GB (8 or more)")
    free = shutil.disk_usage(".").free / 1e9
    yield Check("disk", "ok" if free > MIN_FREE_DISK_GB else "warn", f"{free:.1f} GB free here")
    units = {True: "has units for it", False: "no units: slow on the CPU", None: "nobody knows"}
    yield Check("bf16", "ok", f"the processor: {units[has_bf16_units()]}")
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("accelerator", "ok", ", ".join(names) or "none: everything runs on the CPU")


def _storage(config: RunConfig) -> Iterator[Check]:
    try:
        storage = open_storage(config.storage, config.storage_endpoint)
        storage.check()
        yield Check("storage", "ok", f"{storage.uri} can be written")
    except GcdisError as error:
        yield Check("storage", "fail", str(error))
    try:
        before_run(config)
        yield Check("config", "ok", f"{config.name}, recipe {config.recipe}")
    except GcdisError as error:
        yield Check("config", "fail", str(error))
    if slow := too_slow(config):
        yield Check("speed", "warn", str(slow))


def _ray(config: RunConfig | None) -> Check:
    from gcdis_ray.config import ComputeConfig
    from gcdis_ray.runtime.ray_session import describe

    try:
        return Check("ray cluster", "ok", describe(config.compute if config else ComputeConfig()))
    except GcdisError as error:
        return Check("ray cluster", "fail", str(error))
