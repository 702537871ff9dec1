"""From a config to a job, and from the job to an exit status.

A job's id is ``<name>-<digest>-<number>``. The digest is of what a run makes and where: the config
without ``compute``, overrides applied. So the same run has the same beginning of its ids wherever
it is submitted from, and its jobs are counted, since Ray takes no id twice. While one of them is
alive another would only race it to the same artifacts, and is followed instead.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcdis_ray.config import RunConfig
from gcdis_ray.errors import ConfigError, RuntimeUnavailable
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.runtime.ray_jobs import Job, Jobs, JobTaken, http_address
from gcdis_ray.store.artifacts import canonical_json
from gcdis_ray.submitting.package import Package, make_package
from gcdis_ray.submitting.secrets import secret_by_look

ENTRY = "jobs/run.py"
INTERRUPTED = 130
_TRIES = 5


@dataclass(frozen=True)
class Submitted:
    """A job that a run was submitted as.

    Args:
        address: of its cluster's HTTP.
        job: as it was seen last.
        exit_status: the job's once it is over; 130 when following it was interrupted; None: it was
            not followed.
    """

    address: str
    job: Job
    exit_status: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "job": self.job.id,
            "address": self.address,
            "state": self.job.state,
            "exit_status": self.exit_status,
        }


def submit(
    config: str,
    arguments: Sequence[str],
    overrides: Sequence[str],
    *,
    address: str | None = None,
    folder: Path | None = None,
    wait: bool = True,
) -> Submitted:
    """Run a config as a job: a new one, or the one that is at it already.

    Args:
        config: path of the config file, in ``folder``.
        arguments: more of ``gcdis run``, such as ``--until crop``.
        overrides: values of ``--set``.
        address: of the cluster's HTTP; ``RAY_API_SERVER_ADDRESS`` if not given.
        folder: the checkout that travels; where we are if not given.
        wait: print what the job prints until it is over.

    Returns:
        the job; at once without ``wait``, and when interrupted: it goes on.
    """
    folder, address = (folder or Path.cwd()).resolve(), http_address(address)
    read = load_config(config, overrides)
    if read.compute.address is not None:
        raise ConfigError(
            "a job finds its cluster by itself",
            where=f"compute.address: {read.compute.address}",
            fix="leave it out, and name the cluster by --address",
        )
    where = _inside(Path(config).resolve(), folder)
    more = [*arguments, *(text for value in overrides for text in ("--set", value))]
    if kind := secret_by_look("\n".join(more).encode()):
        raise ConfigError(
            f"{kind} on the command line, which everyone who sees the job can read",
            where="--set",
            fix="give it to the cluster's nodes by their environment",
        )
    with tempfile.TemporaryDirectory(prefix="gcdis-") as place:
        package = make_package(folder, Path(place, "package.zip"))
        _check_inside(package, folder, where)
        _say(f"package: {package}")
        jobs = Jobs(address)
        job = _start(jobs, run_id(read), shlex.join(["python", ENTRY, where, *more]), package)
    if not wait:
        _say(how_to(jobs.address, job.id))
        return Submitted(jobs.address, job)
    return _follow(jobs, job)


def run_id(config: RunConfig) -> str:
    """How ids of a run's jobs begin."""
    made = config.model_dump(mode="json", exclude={"compute"})
    digest = hashlib.sha256(canonical_json(made).encode()).hexdigest()
    return f"{config.name}-{digest[:8]}"


def newest(run: str, jobs: Sequence[Job]) -> tuple[Job | None, int]:
    """The job of a run that is alive, if one is; and how high its jobs are numbered, 0 at first."""
    own = [job for job in jobs if job.id.rpartition("-")[0] == run]
    numbers = [int(n) for job in own if (n := job.id.rpartition("-")[2]).isdecimal()]
    alive = [job for job in own if not job.over]
    return (alive[0] if alive else None), max(numbers, default=0)


def exit_status(job: Job) -> int:
    """Of a job that is over: that of its command, 1 if that is unknown or a signal."""
    if job.state == "SUCCEEDED":
        return 0
    code = job.exit_code or 1
    return code if job.state == "FAILED" and 0 < code < 256 else 1


def how_to(address: str, id: str) -> str:
    """What to type about a job that goes on by itself."""
    return (
        f"job {id} goes on at {address}\n"
        "  follow: the same gcdis submit, or\n"
        f"          ray job logs --follow --address {address} {id}\n"
        f"  stop:   ray job stop --address {address} {id}"
    )


def _inside(config: Path, folder: Path) -> str:
    if not config.is_relative_to(folder):
        raise ConfigError(
            "is not in the folder that travels",
            where=str(config),
            fix=f"copy it below {folder}",
        )
    return config.relative_to(folder).as_posix()


def _check_inside(package: Package, folder: Path, config: str) -> None:
    if ENTRY not in package.names:
        raise ConfigError(
            f"no {ENTRY} here", where=str(folder), fix="submit from a checkout of gcdis_ray"
        )
    if config not in package.names:
        raise ConfigError(
            "is kept out of the package by .rayignore or .gitignore",
            where=config,
            fix="put it elsewhere, configs/ for example",
        )


def _start(jobs: Jobs, run: str, entrypoint: str, package: Package) -> Job:
    for _ in range(_TRIES):
        alive, number = newest(run, jobs.every())
        if alive is not None:
            _say(f"job {alive.id} is at this run already: following it")
            return alive
        id = f"{run}-{number + 1}"
        try:
            jobs.submit(id, entrypoint, package.file, {"run": run})
        except JobTaken:  # someone else was faster, or the cluster has forgotten the last ones
            continue
        _say(f"job {id} at {jobs.address}" + (": goes on from the earlier one" if number else ""))
        return jobs.get(id)
    raise RuntimeUnavailable("others submit the same run all the time", where=f"job {run}")


def _follow(jobs: Jobs, job: Job, write: Callable[[str], None] | None = None) -> Submitted:
    def out(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job = jobs.follow(job.id, write or out)
    except KeyboardInterrupt:
        _say("\n" + how_to(jobs.address, job.id))
        return Submitted(jobs.address, job, INTERRUPTED)
    except RuntimeUnavailable as error:
        raise RuntimeUnavailable(
            f"{error.what}; job {job.id} may go on",
            where=error.where,
            fix="the same gcdis submit follows it again",
        ) from error
    status = exit_status(job)
    _say(f"job {job.id}: {job.state.lower()}" + (f", exit status {status}" if status else ""))
    if status:
        _say("the same gcdis submit goes on from where it stopped")
    return Submitted(jobs.address, job, status)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
