"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.storage import LocalStorage

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


class SmallRun(NamedTuple):
    overrides: list[str]
    contents: dict[str, dict[str, list[str]]]
    printed: str


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs with masks. They may not be published, so they are not here."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GCDIS_SHARED_DATA", default))
    if not (folder / "coco-subset" / "instances.json").is_file():
        pytest.skip(f"no real photographs at {folder}; set GCDIS_SHARED_DATA")
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A moto server of our own, with credentials in the environment."""
    import boto3

    port = _free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    secrets = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(endpoint, timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        with mock.patch.dict(os.environ, secrets):
            boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
            yield endpoint
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The quickstart in small, run once in one process from start to end."""
    from small_run import contents, gcdis, small_overrides

    overrides = small_overrides(tmp_path_factory.mktemp("small"))
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    return SmallRun(overrides, contents(overrides), done.stdout)


@pytest.fixture
def local_work(tmp_path: Path) -> Iterator[StageWork]:
    """A stage's Work on the local runtime and a temporary folder."""
    from gcdis_ray.runtime.local import LocalRuntime

    compute = ComputeConfig(runtime="local", workers=1, threads=1)
    runtime = LocalRuntime(compute)
    storage = LocalStorage(str(tmp_path / "storage"))
    attempt = Attempt(storage, "stage/key", "attempt-0", SCHEMAS)
    yield StageWork(attempt, lambda: runtime, compute, 0, lambda progress: None)
    runtime.close()
