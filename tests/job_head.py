"""A head of Ray that takes jobs, in a process group and a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def job_head(home: Path, *more: str) -> Iterator[dict[str, str]]:
    """Gives the environment of a client; stops the head by its process group.

    Args:
        home: where jobs keep relative paths.
        more: arguments of ``ray start``.
    """
    port, dashboard, agent = _free_port(), _free_port(), _free_port()
    env = os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{BIN}:{env['PATH']}"  # a job's `python` is the head's
    env["GCDIS_HOME"] = str(home)
    env.pop("RAY_ADDRESS", None)
    place = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie below it
    command = [
        str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=4",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        "--object-store-memory=200000000", "--disable-usage-stats", f"--temp-dir={place}", *more,
    ]  # fmt: skip
    server = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError("the head did not come up")
        yield env | {"RAY_API_SERVER_ADDRESS": address}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        shutil.rmtree(place, ignore_errors=True)
