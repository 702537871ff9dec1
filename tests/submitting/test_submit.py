"""From a config to a job: ids, what is refused, exit status; the cluster is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gcdis_ray.cli import main
from gcdis_ray.errors import ConfigError, RuntimeUnavailable
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.runtime.ray_jobs import Job, JobTaken, http_address
from gcdis_ray.submitting import submit as submitting
from gcdis_ray.submitting.submit import exit_status, newest, run_id

CONFIG = {
    "name": "mine",
    "recipe": "discovery",
    "stages": {
        "ingest": {
            "root": "data",
            "labeled": {"images": "labeled", "format": "class_folders"},
            "unlabeled": {"images": "unlabeled"},
            "known_classes": "all",
        },
        "propose": {"source": "image"},
        "embed": {"backbone": "wavelet"},
        "discover": {"method": "kmeans"},
    },
}


class Cluster:
    """Stands in for :class:`gcdis_ray.runtime.ray_jobs.Jobs`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.submitted: list[tuple[str, str]] = []
        self.ends: Callable[[], tuple[str, int | None]] = lambda: ("SUCCEEDED", 0)
        self.taken = 0  # submissions that someone else is faster at
        self.address = ""

    def __call__(self, address: str) -> Cluster:
        self.address = address
        return self

    def submit(self, id: str, entrypoint: str, package: Path, metadata: dict[str, str]) -> None:
        assert package.is_file()
        if self.taken:
            self.taken -= 1
            self.jobs[id] = Job(id, "FAILED", 1, "")
            raise JobTaken(id)
        assert id not in self.jobs
        self.submitted.append((id, entrypoint))
        self.jobs[id] = Job(id, "RUNNING", None, "")

    def every(self) -> list[Job]:
        return list(self.jobs.values())

    def get(self, id: str) -> Job:
        return self.jobs[id]

    def follow(self, id: str, write: Callable[[str], None]) -> Job:
        write(f"log of {id}\n")
        state, code = self.ends()
        self.jobs[id] = Job(id, state, code, "")
        return self.jobs[id]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(submitting, "Jobs", cluster)
    return cluster


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "run.py").touch()
    (folder / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    return folder


def _submit(*more: str) -> int:
    return main(["submit", "mine.yaml", "--address", "http://head:8265", *more])


def test_a_run_becomes_a_job(checkout: Path, cluster: Cluster, capsys: Any):
    assert _submit("--set", "seed=3", "--until", "crop") == 0
    out, error = capsys.readouterr()
    ((id, entrypoint),) = cluster.submitted
    assert entrypoint == "python jobs/run.py mine.yaml --until crop --set seed=3"
    assert id == run_id(load_config("mine.yaml", ["seed=3"])) + "-1"
    assert out == f"log of {id}\n"
    assert "package: 2 files, " in error


def test_scripts_are_told_of_the_job_alone(checkout: Path, cluster: Cluster, capsys: Any):
    cluster.ends = lambda: ("FAILED", 2)
    told = {"address": "http://head:8265"}
    assert _submit("--no-wait", "--json") == 0
    out, _ = capsys.readouterr()
    ((id, _),) = cluster.submitted
    assert json.loads(out) == {**told, "job": id, "state": "RUNNING", "exit_status": None}
    assert _submit("--json") == 2
    out, error = capsys.readouterr()
    assert json.loads(out) == {**told, "job": id, "state": "FAILED", "exit_status": 2}
    assert f"log of {id}" in error


def test_a_run_has_one_beginning_of_ids_wherever_it_is_computed(checkout: Path):
    ids = [
        run_id(load_config("mine.yaml", overrides))
        for overrides in ([], ["compute.workers=4"], ["seed=1"], ["storage=s3://b/p"])
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert ids[0].startswith("mine-")


def test_submitting_again_is_a_new_job_of_the_same_run(checkout: Path, cluster: Cluster):
    cluster.ends = lambda: ("FAILED", 2)
    assert _submit() == 2
    cluster.ends = lambda: ("SUCCEEDED", 0)
    assert _submit() == 0
    first, second = (id for id, _ in cluster.submitted)
    assert (first[:-2], first[-2:], second[-2:]) == (second[:-2], "-1", "-2")


def test_a_run_that_is_alive_is_followed(checkout: Path, cluster: Cluster, capsys: Any):
    assert _submit("--no-wait") == 0
    assert "ray job stop --address http://head:8265 mine-" in capsys.readouterr().err
    assert _submit("--set", "compute.workers=1") == 0
    assert len(cluster.submitted) == 1
    assert "is at this run already" in capsys.readouterr().err


def test_two_at_once_get_different_ids(checkout: Path, cluster: Cluster):
    cluster.taken = 2
    assert _submit() == 0
    assert cluster.submitted[0][0].endswith("-3")
    cluster.taken = 99
    with pytest.raises(RuntimeUnavailable):
        submitting.submit("mine.yaml", [], [], address="head:8265")


def test_interrupted_it_lets_the_job_go_on(checkout: Path, cluster: Cluster, capsys: Any):
    def interrupted() -> tuple[str, int | None]:
        raise KeyboardInterrupt

    cluster.ends = interrupted
    assert _submit() == 130
    ((id, _),) = cluster.submitted
    assert cluster.jobs[id].state == "RUNNING"
    assert f"ray job stop --address http://head:8265 {id}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [("SUCCEEDED", 0, 0), ("SUCCEEDED", None, 0), ("FAILED", 2, 2), ("FAILED", None, 1),
     ("FAILED", -9, 1), ("FAILED", 0, 1), ("STOPPED", None, 1), ("STOPPED", 0, 1)],
)  # fmt: skip
def test_exit_status(state: str, code: int | None, status: int):
    assert exit_status(Job("a-1", state, code, "")) == status


def test_numbers_of_other_runs_do_not_count():
    over = [Job("a-1", "FAILED", 1, ""), Job("a-10", "STOPPED", None, "")]
    jobs = [Job("a-b-99", "RUNNING", None, ""), *over, Job("raysubmit_x", "RUNNING", None, "")]
    assert newest("a", jobs) == (None, 10)
    assert newest("c", jobs) == (None, 0)
    assert newest("a-b", jobs) == (jobs[0], 99)


def test_what_cannot_run_as_a_job_is_refused_before_it_is_sent(
    checkout: Path, cluster: Cluster, capsys: Any, tmp_path: Path
):
    def refused(*more: str, config: str = "mine.yaml") -> str:
        assert main(["submit", config, "--address", "head:8265", *more]) == 2
        return capsys.readouterr().err

    assert "--address" in refused("--set", "compute.address=other:6379")
    assert "did you mean" in refused("--set", "stages.ingest.roott=x")
    assert "a password in an address" in refused(
        "--set", "storage=s3://me:" + "passpasspass@bucket/x"
    )
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(CONFIG))
    assert "not in the folder that travels" in refused(config="../other.yaml")
    (checkout / ".rayignore").write_text("/mine.yaml")
    assert "kept out of the package" in refused()
    (checkout / ".rayignore").unlink()
    (checkout / ".env").touch()
    assert "secrets" in refused()
    (checkout / ".env").unlink()
    (checkout / "jobs" / "run.py").unlink()
    assert "submit from a checkout" in refused()
    assert not cluster.submitted


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "auto://x"])
def test_other_addresses_are_refused(address: str):
    with pytest.raises(ConfigError, match="http://HEAD:8265"):
        http_address(address)


def test_an_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://there:8265/")
    assert http_address(None) == "http://there:8265"
    assert http_address("here:1") == "http://here:1"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    with pytest.raises(ConfigError, match="RAY_API_SERVER_ADDRESS"):
        http_address(None)
