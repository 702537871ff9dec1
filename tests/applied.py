"""``gcdis predict`` on the small run."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_run import here

SHARDS = "stages.images.images_per_shard=3"  # other shards than the run's


def storage_of(small_run: Any) -> str:
    """Of the small run."""
    return next(text for text in small_run.overrides if text.startswith("storage=")).split("=")[1]


def images_of(small_run: Any) -> Path:
    """Its validation images."""
    return Path(storage_of(small_run)).parent / "scenes/images/validation"


def predict(
    model: object, images: object, out: object, *more: str
) -> subprocess.CompletedProcess[str]:
    """``gcdis predict`` in this process."""
    words: Sequence[object] = ("predict", model, "--images", images, "--out", out)
    return here([*map(str, words), "--runtime", "local", *more])


def result_files(out: Path) -> dict[str, bytes]:
    """What people read."""
    found = [path for path in out.glob("*.json") if path.is_file()]
    for folder in ("predictions", "pictures"):
        found += [path for path in (out / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(found)}
