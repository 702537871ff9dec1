"""``gcdis submit`` on a head of our own: to the end, with a failure, twice, and cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from class_folders import crop_folders_config, make_crop_folders
from job_head import job_head
from small_run import ROOT, program

pytestmark = [pytest.mark.ray, pytest.mark.thorough]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A checkout with a config, data beside it, and the environment of a client."""
    folder = tmp_path_factory.mktemp("submit")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("gcdis_ray", "jobs", "pyproject.toml", ".rayignore"):
        (checkout / name).symlink_to(ROOT / name)
    make_crop_folders(folder / "data")
    config = {
        "name": "crops",
        "recipe": "discovery",
        "storage": str(folder / "storage"),
        "compute": {"runtime": "ray", "workers": 1, "data_workers": 1},
        "stages": {
            "ingest": crop_folders_config(folder / "data"),
            "propose": {"source": "image"},
            "embed": {"backbone": "wavelet", "input_px": 16},
            "count": {"num_novel": 2},
            "discover": {"method": "kmeans"},
            "evaluate": {"kmeans_on_pixels": False},
        },
    }
    (checkout / "crops.yaml").write_text(yaml.safe_dump(config))
    with job_head(folder / "home") as env:
        address = env.pop("RAY_API_SERVER_ADDRESS")
        # Ray's variables would win over an argument: ours must win over them.
        yield checkout, env | {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1", "ADDRESS": address}


def _submit(place: tuple[Path, dict[str, str]], *more: str) -> subprocess.Popen[str]:
    checkout, env = place
    python_path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    return subprocess.Popen(
        program(["submit", "crops.yaml", "--address", env["ADDRESS"], *more]),
        cwd=checkout, env=env | {"PYTHONPATH": python_path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells may ignore it
    )  # fmt: skip


def _ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate()
    return process.returncode, out, error


def test_a_job_that_fails_gives_its_status(place):
    """A mistake of the config that only the job's own checks find: exit status 2."""
    status, out, error = _ended(_submit(place, "--from", "discover"))
    assert status == 2, out[-2000:] + error[-2000:]
    assert "must be run first" in out
    assert "failed, exit status 2" in error


def test_a_run_is_submitted_followed_cut_off_and_taken_up(place):
    """Another terminal follows the same job; the first is interrupted and detaches; when it is
    over another submission is another job, that finds everything done."""
    first = _submit(place)
    said = ""
    while "job crops-" not in said:
        line = first.stderr.readline()  # type: ignore[union-attr]
        assert line, said
        said += line
    second = _submit(place)
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    status, _, error = _ended(first)
    assert status == 130
    assert "ray job stop --address http://127.0.0.1:" in error
    status, out, error = _ended(second)
    assert status == 0, out[-3000:] + error[-3000:]
    assert "is at this run already" in error
    assert out.count("✓ ingest") == 1
    assert "report: " in out
    status, out, error = _ended(_submit(place))
    assert status == 0, out[-3000:] + error[-3000:]
    assert "goes on from the earlier one" in error
    assert "Nothing to do: everything is cached." in out
