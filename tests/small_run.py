"""The quickstart in small: every stage, a few steps each. For tests of the whole pipeline."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gcdis_ray.cli import main
from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.run.pipeline import Pipeline, load_config

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "quickstart.yaml"


def small_overrides(folder: Path, runtime: str = "local") -> list[str]:
    """Writes scenes below ``folder`` and gives the overrides that make the quickstart small."""
    scenes = folder / "scenes"
    write_scenes(scenes, num_labeled=16, num_unlabeled=24, num_validation=8)
    return [
        "name=small",
        f"storage={folder / 'storage'}",
        f"compute.runtime={runtime}",
        "compute.checkpoint_every_s=0",
        f"stages.ingest.root={scenes}",
        "stages.ingest.images_per_shard=8",
        "stages.propose.training.steps=30",
        "stages.propose.training.batch_size=4",
        "stages.propose.min_score=0.05",  # whatever so short a training has made of it
        "stages.discover.gcdis.training.steps=12",
        "stages.discover.gcdis.training.batch_size=32",
        "stages.discover.gcdis.discovery.queue_size=64",
        "stages.segment.training.steps=8",
        "stages.segment.training.batch_size=4",
    ]


def arguments(command: str, overrides: Sequence[str], config: Path = CONFIG) -> list[str]:
    return [command, str(config), *(text for o in overrides for text in ("--set", o))]


def program(arguments: Sequence[str]) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "gcdis_ray.cli", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def here(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What the command prints and how it ends, without a process of its own."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(list(arguments))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), error.getvalue())


def gcdis(command: str, overrides: Sequence[str], *more: str) -> subprocess.CompletedProcess[str]:
    return here([*arguments(command, overrides), *more])


def open_pipeline(overrides: Sequence[str]) -> Pipeline:
    return Pipeline(load_config(CONFIG, overrides))


def contents(overrides: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Stage -> member -> SHA-256 of its files: equal runs have equal contents."""
    return {
        name: {
            member: [record.sha256 for record in records]
            for member, records in artifact.manifest.files.items()
        }
        for name, artifact in open_pipeline(overrides).artifacts().items()
    }
