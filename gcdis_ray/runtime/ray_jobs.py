"""Jobs of a cluster, over the HTTP of its head: pack, submit, follow. Joins no cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcdis_ray.errors import ConfigError, RuntimeUnavailable
from gcdis_ray.runtime import ray_session

MAX_PACKAGE_BYTES = 100 * 2**20  # the head's HTTP refuses more
ADDRESS = "RAY_API_SERVER_ADDRESS"
_PATIENCE_S = 60.0  # a head that is still coming up, or is gone for a moment
_POLL_S = 1.0
_NO_AGENT = (
    "the head's agent is not there: where another Ray runs on its machine, start the head with a "
    "--dashboard-agent-listen-port of its own"
)


@dataclass(frozen=True)
class Job:
    """What a cluster says of one."""

    id: str
    state: str  # PENDING | RUNNING | STOPPED | SUCCEEDED | FAILED
    exit_code: int | None
    message: str

    @property
    def over(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")


class JobTaken(Exception):
    """The cluster has, or has had, a job of this id."""


def packed_files(folder: Path) -> dict[str, int]:
    """Name, relative to ``folder``, and bytes of every file that :func:`pack` would take."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    folder, found = folder.absolute(), dict[str, int]()

    def note(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size

    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    _dir_travel(folder, excludes, note, include_gitignore=True, logger=_quiet())
    return found


def _quiet() -> logging.Logger:
    quiet = logging.getLogger("gcdis_ray.package")
    quiet.setLevel(logging.ERROR)
    return quiet


def pack(folder: Path, file: Path) -> None:
    """Writes the zip file that Ray would make of a working directory: without what ``.gitignore``
    and ``.rayignore`` name, nor ``.git`` and virtual environments."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    file.unlink(missing_ok=True)  # Ray would leave it as it is
    create_package(
        str(folder),
        file,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
        logger=_quiet(),
    )


def http_address(address: str | None) -> str:
    """Where a cluster is spoken to.

    Args:
        address: ``http://HEAD:8265``, or without ``http://``; None: what
            ``RAY_API_SERVER_ADDRESS`` says.

    Raises:
        ConfigError: there is none, or one of another kind.
    """
    address = address or os.environ.get(ADDRESS)
    fix = "give the HTTP address of the head's dashboard, http://HEAD:8265"
    if not address:
        raise ConfigError(
            "which cluster? none is named", where="--address", fix=f"{fix}, or export {ADDRESS}"
        )
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme not in ("http", "https") or not rest.strip("/"):
        raise ConfigError(
            "not the address of a cluster's HTTP", where=f"--address {address}", fix=fix
        )
    return f"{scheme}://{rest.rstrip('/')}"


class Jobs:
    """A client of the cluster at an address.

    Raises:
        ConfigError: no address, or none of a cluster's HTTP.
        RuntimeUnavailable: nobody answers there, or not without a token.
    """

    def __init__(self, address: str | None) -> None:
        """Args: address: as of :func:`http_address`."""
        self.address = http_address(address)
        os.environ[ADDRESS] = self.address  # Ray lets its environment win over an argument
        ray_session._prepare_environment(self.address)
        from ray.job_submission import JobSubmissionClient

        # it would tell of the package at every try
        logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
        with self._errors():
            self._client = JobSubmissionClient(self.address)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise RuntimeUnavailable(
                "the cluster asks for a token",
                where=f"--address {self.address}",
                fix="export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH",
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise RuntimeUnavailable(
                "no Ray cluster answers",
                where=f"--address {self.address}",
                fix="check the address; a head behind a firewall is reached by a tunnel, such as "
                "kubectl port-forward or ssh -L",
            ) from error

    def submit(self, id: str, entrypoint: str, package: Path, metadata: dict[str, str]) -> None:
        """Starts a job in a copy of the packed folder.

        Raises:
            JobTaken: see there.
            RuntimeUnavailable: the cluster does not take it.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._errors():
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=id,
                        runtime_env={"working_dir": str(package)},
                        metadata=metadata,
                    )
                return
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise JobTaken(id) from error
                coming_up = "No available agent" in str(error)
                if not coming_up or time.monotonic() > deadline:
                    first = str(error).strip().splitlines()[0][:300]
                    raise RuntimeUnavailable(
                        f"the cluster does not take the job: {first}",
                        where=f"--address {self.address}",
                        fix=_NO_AGENT if coming_up else None,
                    ) from error
                time.sleep(_POLL_S)

    def every(self) -> list[Job]:
        """All jobs that the cluster remembers."""
        with self._errors():
            return [_job(info) for info in self._client.list_jobs() if info.submission_id]

    def get(self, id: str) -> Job:
        """Raises: RuntimeUnavailable: the cluster knows none of this id, as after a new start."""
        try:
            with self._errors():
                return _job(self._client.get_job_info(id))
        except RuntimeError as error:
            raise RuntimeUnavailable(
                f"the cluster does not know job {id}", where=f"--address {self.address}"
            ) from error

    def follow(self, id: str, write: Callable[[str], None]) -> Job:
        """Hands what the job prints to ``write`` until it is over. A line that breaks is taken up
        where it broke.

        Raises:
            RuntimeUnavailable: the cluster has not answered for a minute.
        """
        told, heard = 0, time.monotonic()
        while True:
            try:
                told = asyncio.run(self._tail(id, told, write))
                job = self.get(id)
                heard = time.monotonic()
                if job.over:
                    return job
            except RuntimeUnavailable:
                if time.monotonic() - heard > _PATIENCE_S:
                    raise
            time.sleep(_POLL_S)

    async def _tail(self, id: str, told: int, write: Callable[[str], None]) -> int:
        """Args: told: characters of the log that are written already. Gives that number anew."""
        import aiohttp

        skip = told
        try:
            async for text in self._client.tail_job_logs(id):
                new = text[skip:]
                skip = max(0, skip - len(text))
                if new:
                    write(new)
                    told += len(new)
        except (RuntimeError, OSError, aiohttp.ClientError):
            pass  # the job has no log yet, or the line broke: its state tells how to go on
        return told


def _job(info: Any) -> Job:
    return Job(info.submission_id, str(info.status.value), info.driver_exit_code, info.message)
