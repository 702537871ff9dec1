"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from examples import PROFILES
from hypothesis import settings
from made_once import made_once

from gcdis_ray.run import work
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.storage import LocalStorage

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

for _profile, _examples in PROFILES.items():
    settings.register_profile(_profile, max_examples=_examples, deadline=None)
settings.load_profile("full")  # unless --hypothesis-profile says otherwise

TESTS = Path(__file__).parent


@lru_cache
def _group(path: Path) -> str:
    """What the two processes of a test run hand out between them as one: all files with a test that
    needs Ray, since two Rays on two cores starve each other; all that need the small run; every
    other file, so that what a module sets up is set up once."""
    text = path.read_text()
    if "mark.ray" in text and path != Path(__file__):
        return "ray"
    return "small-run" if re.search(r"[(,] ?small_run\b", text) else path.stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(config.rootpath / nodeid.partition("::")[0])

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first. Ray's tests that need the small run come last: the other process makes
    it."""
    rank = {"ray": 0, "small-run": 1}

    def order(item: pytest.Item) -> tuple[int, bool]:
        needs_run = "small_run" in getattr(item, "fixturenames", ())
        return rank.get(_group(item.path), 2), needs_run

    items.sort(key=order)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The faults that tests have injected, and those survived (``record_property``)."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "faults" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


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
def ray_address(s3_endpoint: str) -> Iterator[str]:  # workers inherit S3's credentials
    """Of one Ray for the session, in a process of its own. Drivers connect to it."""
    path = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]  # workers unpickle toys
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    environment["RAY_worker_niceness"] = "0"  # the other process's tests would go first
    environment["RAY_GCS_SERVER_PORT"] = str(_free_port())
    environment.pop("RAY_ADDRESS", None)
    cluster = subprocess.Popen(
        [sys.executable, str(TESTS / "ray_cluster.py")], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        yield cluster.stdout.readline().strip()
    finally:
        cluster.stdin.close()
        cluster.wait()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """The quickstart in small, run once in one process from start to end."""
    from small_run import arguments, contents, environment, program, small_overrides

    def make(folder: Path) -> SmallRun:
        overrides = small_overrides(folder)
        done = subprocess.run(
            program(arguments("run", overrides)), capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0, done.stderr
        return SmallRun(overrides, contents(overrides), done.stdout)

    return SmallRun(*made_once(tmp_path_factory, "small", make))


@pytest.fixture
def local_work(tmp_path: Path) -> StageWork:
    """A stage's Work on the local runtime and a temporary folder."""
    from tables import SCHEMAS

    return work.local_work(LocalStorage(str(tmp_path / "storage")), SCHEMAS)
