"""The pool of a data step follows the cluster: nodes that come, nodes that go."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(500)
def test_a_step_begun_on_the_head_alone_uses_a_node_that_comes_and_survives_its_going():
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    environment |= {"PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"RAY_AUTH_MODE": "disabled"}
    with tempfile.TemporaryDirectory(prefix="grow-") as folder:  # Ray's sockets: a short path
        done = subprocess.run(
            [sys.executable, str(TESTS / "runtime/growing_cluster.py"), folder],
            env=environment, capture_output=True, text=True, timeout=480,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WORKERS 3" in done.stdout
    assert "DONE 6" in done.stdout
