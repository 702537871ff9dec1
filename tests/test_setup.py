"""`make setup`: which Python it takes, and what it says where none fits."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from small_run import ROOT

from gcdis_ray.run.checks import PYTHONS

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")

UV = """#!/bin/sh
echo "$@ downloads=$UV_PYTHON_DOWNLOADS" > asked
mkdir -p .venv
exit {status}
"""


def _setup(folder: Path, *arguments: str, status: int = 0) -> tuple[int, str, str]:
    """Exit status, what is said, and what uv is asked."""
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy2(ROOT / name, folder)  # no newer the next time
    (folder / "uv").write_text(UV.format(status=status))
    (folder / "uv").chmod(0o755)
    ours = ("UV_PYTHON_DOWNLOADS", "PYTHON", "MAKEFLAGS", "MAKELEVEL")
    done = subprocess.run(
        ["make", "setup", "UV=./uv", *arguments],
        cwd=folder, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name not in ours},
    )  # fmt: skip
    return done.returncode, done.stderr, (folder / "asked").read_text()


def test_uv_finds_or_fetches_a_python_unless_one_is_named(tmp_path: Path):
    assert _setup(tmp_path)[::2] == (
        0,
        "sync --locked --extra cpu --extra weights --quiet downloads=\n",
    )
    (tmp_path / "asked").write_text("nothing")
    assert _setup(tmp_path)[2] == "nothing"  # it is set up
    for path in ("/there/python3.13", "/there/python3.11", "/there/python3.13"):
        status, _, asked = _setup(tmp_path, f"PYTHON={path}")
        assert status == 0
        assert f"--python {path} " in asked
        (tmp_path / "asked").write_text("nothing")
        assert _setup(tmp_path, f"PYTHON={path}")[2] == "nothing"
        assert _setup(tmp_path)[2] == "nothing"


def test_what_to_install_is_said(tmp_path: Path):
    status, said, _ = _setup(tmp_path, "PYTHON=python3.9", status=2)
    assert status != 0
    assert "install 3.11, 3.12, 3.13 or 3.14" in said
    assert "PYTHON=" in said
    assert not (tmp_path / ".venv" / ".synced").exists()


def test_the_lock_is_for_every_python_and_machine_that_is_named():
    project, lock = (
        tomllib.loads((ROOT / name).read_text()) for name in ("pyproject.toml", "uv.lock")
    )
    oldest, newest = PYTHONS
    wanted = f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert project["project"]["requires-python"] == wanted
    assert lock["requires-python"].replace(" ", "") == wanted
    assert len(lock["required-markers"]) == 3
    for name in ("torch", "ray", "pycocotools", "pyarrow", "numpy"):
        for tag in ("cp311", "cp312", "cp313", "cp314"):
            for machine in ("x86_64", "aarch64", "macosx"):
                assert any(
                    f"-{tag}-" in wheel["url"] and machine in wheel["url"]
                    for package in lock["package"] if package["name"] == name
                    for wheel in package["wheels"]
                ), (name, tag, machine)  # fmt: skip
