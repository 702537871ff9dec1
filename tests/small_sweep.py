"""Sweep files over the small run, whose shared stages are made already."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from small_run import CONFIG, here

from gcdis_ray.config import apply_overrides

SPACE: Mapping[str, Any] = {
    "stages.discover.gcdis.discovery.temperature.maximum": {
        "kind": "uniform",
        "low": 0.2,
        "high": 1.0,
    },
}


def sweep_file(folder: Path, overrides: list[str], **fields: Any) -> Path:
    """A sweep of ``training_loss`` on the run with these overrides, or what ``fields`` say."""
    spec: dict[str, Any] = {
        "name": "small-sweep",
        "base": str(CONFIG),
        "overrides": apply_overrides({}, overrides),
        "space": dict(SPACE),
        "objective": "training_loss",
        "searcher": "random",
        "trials": 4,
    }
    spec |= fields
    file = folder / f"{spec['name']}.yaml"
    file.write_text(
        yaml.safe_dump({k: v for k, v in spec.items() if v is not None}, sort_keys=False)
    )
    return file


def copy_of(run: Any, folder: Path, *more: str) -> list[str]:
    """Overrides of a copy of a small run, so that a sweep adds nothing to the run itself."""
    storage = next(o for o in run.overrides if o.startswith("storage=")).partition("=")[2]
    shutil.copytree(storage, folder / "storage")
    return [*run.overrides, f"storage={folder / 'storage'}", *more]


def gcdis_sweep(file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return here(["sweep", str(file), *more])
