"""A spot machine that is to be taken back: its node of Ray is told to drain."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "cluster" / "spot_node.py"
RAY = """#!/bin/sh
echo "$@" > {folder}/started
echo "$RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" > {folder}/budget
trap 'touch {folder}/drained; exit 0' TERM
while true; do sleep 0.05; done
"""


class Service:
    """AWS's metadata service, of version 2, as far as it is asked."""

    def __init__(self) -> None:
        self.notice = threading.Event()
        self.asked = threading.Event()

    def handler(service) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert self.path == "/latest/api/token"
                self.answer(200, b"secret")

            def do_GET(self) -> None:
                assert self.path == "/latest/meta-data/spot/instance-action"
                if self.headers["X-aws-ec2-metadata-token"] != "secret":
                    self.answer(401, b"")
                    return
                service.asked.set()
                told = service.notice.is_set()
                self.answer(*(200, b'{"action": "terminate"}') if told else (404, b""))

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    state = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), state.handler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def start(folder: Path, endpoint: str) -> subprocess.Popen[bytes]:
    ray = folder / "ray"
    ray.write_text(RAY.format(folder=folder))
    ray.chmod(0o755)
    code = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import spot_node; "
    code += "sys.exit(spot_node.main(sys.argv[1:], every_s=0.05))"
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
    }
    return subprocess.Popen([sys.executable, "-c", code, "--address=head:6379"], env=environment)


def test_a_notice_drains_the_node(service: tuple[Service, str], tmp_path: Path):
    state, endpoint = service
    node = start(tmp_path, endpoint)
    try:
        assert state.asked.wait(60)
        assert node.poll() is None
        assert not (tmp_path / "drained").exists()
        state.notice.set()
        assert node.wait(60) == 0
    finally:
        node.kill()
    assert (tmp_path / "drained").exists()
    assert (tmp_path / "started").read_text().split() == ["start", "--block", "--address=head:6379"]
    assert float((tmp_path / "budget").read_text()) == 100


def test_a_signal_is_passed_on_where_no_service_answers(tmp_path: Path):
    node = start(tmp_path, "http://127.0.0.1:9")
    try:
        while not (tmp_path / "budget").exists():
            assert node.poll() is None
        node.terminate()
        assert node.wait(60) == 0
    finally:
        node.kill()
    assert (tmp_path / "drained").exists()


def test_spot_machines_are_started_by_it():
    launcher = yaml.safe_load((ROOT / "cluster" / "aws.yaml").read_text())
    (target,) = (t for t, s in launcher["file_mounts"].items() if s == "cluster/spot_node.py")
    assert any(target in line for line in launcher["worker_start_ray_commands"])
