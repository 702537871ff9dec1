"""A Ray cluster of several nodes on this machine: a head without work, and nodes that come and go.

A node is a ``ray start`` with a raylet and workers of its own. All its processes carry a mark, so
that it can die as a machine does: all of them at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from marked import Mark

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
NODE = {"cpus": 2, "gpus": 1}  # logical ones of every node but the head


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(happens: Callable[[], Any], what: str, within_s: float = 300) -> Any:
    """What ``happens`` gives, once it gives something."""
    deadline = time.monotonic() + within_s
    while not (found := happens()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.2)
    return found


class Node:
    """One ``ray start`` and all that comes of it."""

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name, self._mark, self._log = name, Mark(name), log
        command = [
            str(BIN / "ray"), "start", "--block", f"--node-name={name}",
            "--object-store-memory=100000000", "--disable-usage-stats",
            "--min-worker-port=0", "--max-worker-port=0", "--include-log-monitor=False",
            f"--dashboard-agent-listen-port={_free_port()}", *arguments,
        ]  # fmt: skip
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command, env=environment | self._mark.variable, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def has_ended(self) -> bool:
        """By itself: Ray gives up a raylet that does not come up within 30 s, on a busy machine."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        return self._log.read_text()[-3000:]

    def processes(self) -> dict[int, str]:
        """Process id -> command line."""
        return self._mark.processes()

    def tell_to_end(self) -> None:
        """SIGTERM to ``ray start``, as of a machine that will be taken away soon."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to every process, until there is none: what was forked meanwhile dies, too."""
        self._process.kill()
        while found := self.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()


class Cluster:
    """A head with no CPUs, where drivers run, and the nodes added to it."""

    def __init__(self) -> None:
        # Short: Ray's sockets lie below it.
        self._folder = Path(tempfile.mkdtemp(prefix="gcdis-", dir="/tmp"))
        (self._folder / "tmp").mkdir()
        port, dashboard = _free_port(), _free_port()
        self.address, self.url = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        ours = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        theirs = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.environment = theirs | {
            "PATH": f"{BIN}:{os.environ['PATH']}",  # a job's `python` is the head's
            "PYTHONPATH": os.pathsep.join(ours),  # workers unpickle toys
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "GCDIS_HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),  # what the killed leave there goes with the rest
            "RAY_AUTH_MODE": "disabled",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_worker_niceness": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
        }
        self.nodes: list[Node] = []
        self._started = 0
        self.head = self._start(
            "head",
            ["--head", f"--port={port}", f"--dashboard-port={dashboard}",
             f"--ray-client-server-port={_free_port()}", f"--temp-dir={self._folder}"],
        )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            wait_for(self._answers, "a head that answers")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, name: str, arguments: list[str], cpus: int = 0, gpus: int = 0) -> Node:
        room = [f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        log = self._folder / f"{name}.log"
        return Node(name, [*arguments, *room], self.environment, log)

    def _answers(self) -> bool:
        assert not self.head.has_ended(), self.head.last_words()
        try:
            return bool(self.state("nodes"))
        except OSError:
            return False

    def state(self, kind: str) -> list[dict[str, Any]]:
        """What Ray's state API lists: ``actors``, ``nodes``, ``placement_groups``."""
        query = f"{self.url}/api/v0/{kind}?detail=1&limit=10000"
        with urllib.request.urlopen(query, timeout=60) as answer:
            return json.load(answer)["data"]["result"]["result"]

    def add(self) -> Node:
        """Start a node; it is there a few seconds later."""
        self._started += 1
        assert self._started < 50, "nodes end by themselves, one after another"
        name = f"node-{self._started}"
        self.nodes.append(self._start(name, [f"--address={self.address}"], **NODE))
        return self.nodes[-1]

    def tend(self) -> None:
        """Put other nodes in the place of those that have ended by themselves."""
        for node in [node for node in self.nodes if node.has_ended()]:
            self.kill(node)
            self.add()

    def have(self, count: int) -> None:
        """Add nodes until there are ``count``, and wait for them."""
        while len(self.nodes) < count:
            self.add()
        wait_for(self._all_joined, "nodes that joined")

    def _all_joined(self) -> bool:
        self.tend()
        return self.names().keys() >= {node.name for node in self.nodes}

    def names(self) -> dict[str, str]:
        """Names of the nodes that Ray takes for alive, but the head's: name -> Ray's id."""
        listed = self.state("nodes")
        alive = [node for node in listed if node["state"] == "ALIVE" and not node["is_head_node"]]
        return {node["node_name"]: node["node_id"] for node in alive}

    def kill(self, node: Node) -> None:
        self.nodes.remove(node)
        node.kill()

    def close(self) -> None:
        """Leave nothing behind."""
        for node in [*self.nodes, self.head]:
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
