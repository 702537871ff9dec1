"""``ray job submit`` on a local head, exactly as the README says; the exit status propagates."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from job_head import BIN, job_head
from small_run import ROOT

from gcdis_ray.data.samples.digits import write_scenes

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client of a head of our own."""
    with job_head(tmp_path_factory.mktemp("home")) as env:
        yield env


def _submit(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--", "python", "jobs/run.py",
        "configs/quickstart.yaml", *arguments,
    ]  # fmt: skip
    for _ in range(20):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if "No available agent to submit job" not in done.stderr:  # the head is still coming up
            break
        time.sleep(1)
    return done


@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_submit_runs_and_propagates_status(head: dict[str, str]):
    """The README's command, with fewer steps and no more than the first two stages that compute."""
    steps = "stages.propose.training.steps=20"
    done = _submit(head, "--set", steps, "--until", "propose")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    home = Path(head["GCDIS_HOME"])
    for stage in ("ingest", "propose"):  # a Ray Data step, and two workers of Ray Train
        assert list((home / "runs" / "quickstart" / stage).glob("*/manifest.json"))
    wrong = _submit(head, "--set", "stages.ingest.roott=x")
    assert wrong.returncode == 1  # Ray reports every failure of an entry point as 1
    assert "did you mean 'root'" in wrong.stdout + wrong.stderr


def test_a_sweep_is_a_job_too(tmp_path: Path):
    """Its base config is found beside the sweep file, relative paths are below GCDIS_HOME."""
    write_scenes(tmp_path / "scenes", num_labeled=4, num_unlabeled=4, num_validation=2)
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "sweep.py"), "configs/sweep_class_count.yaml",
         "--set", "overrides.stages.ingest.root=scenes", "--plan"],
        cwd=ROOT, env=os.environ | {"GCDIS_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "26 trials (grid), maximum of balanced_accuracy" in done.stdout
    assert f"results: {tmp_path}/runs/quickstart/sweeps/class-count-" in done.stdout


def test_what_a_sweep_has_chosen_is_a_job(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "run.py"), "--from-sweep", "runs/q/sweeps/none-1"],
        cwd=ROOT, env=os.environ | {"GCDIS_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--from-sweep runs/q/sweeps/none-1: no best.yaml there" in done.stderr
    assert not (tmp_path / "runs").exists()  # no scenes of the quickstart


def test_a_sweep_of_any_name_gets_the_quickstart_s_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(ROOT))
    from jobs.sweep import base_of

    file = tmp_path / "mine.yaml"
    file.write_text("base: there/quickstart.yaml")
    assert base_of(file) == tmp_path / "there" / "quickstart.yaml"
    assert base_of(tmp_path / "none.yaml").name == "none.yaml"


@pytest.mark.parametrize(  # reading .gitignore as well is a setting of Ray's
    ("linked", "reads_gitignore"), [(False, False), (True, True)], ids=["folders", "links"]
)
def test_the_package_sent_along_is_small_and_has_no_data(
    tmp_path: Path, linked: bool, reads_gitignore: bool
):
    """Packed by Ray's own code: a checkout whose files are empty, with what the shipped configs
    would read and write there, and a virtual environment."""
    from ray._private.runtime_env.packaging import create_package

    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    tracked = [name for name in listed if (ROOT / name).is_file()]
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for name in tracked:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    for name in (".rayignore", ".gitignore"):
        (checkout / name).write_text((ROOT / name).read_text())
    places = {".venv/lib", *(place for file in CONFIGS for place in default_places(file))}
    assert {"data", "data/coco", "runs/quickstart"} <= places
    for place in sorted(places):
        top, _, below = place.partition("/")
        if linked and not (checkout / top).exists():
            (elsewhere / top).mkdir(parents=True)
            (checkout / top).symlink_to(elsewhere / top)
        (checkout / top / below).mkdir(parents=True, exist_ok=True)
        (checkout / top / below / "1.jpg").touch()
    create_package(str(checkout), tmp_path / "package.zip", include_gitignore=reads_gitignore)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        sent = set(package.namelist())
    needed = {name for name in tracked if name.startswith(("gcdis_ray/", "configs/", "jobs/"))}
    assert "gcdis_ray/data/images/__init__.py" in needed
    assert needed <= sent <= set(tracked)
    assert sum((ROOT / name).stat().st_size for name in sent) < 5_000_000


def default_places(config: Path) -> list[str]:
    """Relative paths of data and results in a config, unless it is a sweep's."""
    found = yaml.safe_load(config.read_text())
    root = found.get("stages", {}).get("ingest", {}).get("root")
    return [place for place in (root, found.get("storage")) if place]
