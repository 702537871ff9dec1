"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcdis_ray.attempt import Attempt
from gcdis_ray.config import ComputeConfig
from gcdis_ray.storage import LocalStorage
from gcdis_ray.work import StageWork

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs with masks. They may not be published, so they are not here."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GCDIS_SHARED_DATA", default))
    if not (folder / "coco-subset" / "instances.json").is_file():
        pytest.skip(f"no real photographs at {folder}; set GCDIS_SHARED_DATA")
    return folder


@pytest.fixture
def local_work(tmp_path: Path) -> Iterator[StageWork]:
    """A stage's Work on the local runtime and a temporary folder."""
    from gcdis_ray.runtime.local import LocalRuntime

    compute = ComputeConfig(runtime="local", workers=1, threads=1)
    runtime = LocalRuntime(compute)
    storage = LocalStorage(str(tmp_path / "storage"))
    attempt = Attempt(storage, "stage/key", "attempt-0")
    yield StageWork(attempt, lambda: runtime, compute, 0, lambda progress: None)
    runtime.close()
