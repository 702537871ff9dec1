"""Starting Ray here, or joining a cluster; and leaving nothing behind.

Without an address (and outside a Ray job) a small Ray starts inside this machine for the length of
the run. It listens on the loopback interface only and asks every client for a token that exists in
this process's environment alone.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import ConfigError, RuntimeUnavailable
from gcdis_ray.runtime.devices import no_gpu_here

LOGICAL_CPUS = 4  # at least: below that Ray's helpers and our workers wait for one another
TRAIN_CPUS = 0.5  # logical CPUs of a training worker: it shares them with actors of Ray Data

_SETTINGS = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # we draw our own
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every printed line appears twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in workers as in the driver
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a run ends this long after its last step
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # importing torch on a busy machine is slow
    # Under `uv run` Ray would build every worker a new environment; ours is already the right one.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray Train writes checkpoints by itself: no headers there, either, that a service may not know.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else its C++ side writes to the terminal
    "RAY_ENABLE_AUTO_CONNECT": "0",  # no second Ray when a thread still asks for a closed one
}
_LOCAL_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # no spot nodes here
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_worker_maximum_startup_concurrency": "8",  # more than cores, or Ray warns of many actors
}


def cluster_address(compute: ComputeConfig) -> str | None:
    """Where to connect; None starts a Ray of our own. A Ray job finds its cluster by itself."""
    return compute.address or os.environ.get("RAY_ADDRESS") or None


def local_cpus(compute: ComputeConfig) -> int:
    """Logical CPUs of a Ray of our own: a promise to its scheduler, not a limit on cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = max(LOGICAL_CPUS, compute.data_workers, math.ceil(train_resources(compute)["CPU"]))
    return compute.num_cpus or max(wanted, cores or 1)


def train_resources(compute: ComputeConfig) -> dict[str, float]:
    """What all workers of a training run need together."""
    need = {"CPU": TRAIN_CPUS * compute.workers}
    if compute.gpus_per_worker:
        need["GPU"] = compute.gpus_per_worker * compute.workers
    return need


def _least(compute: ComputeConfig) -> dict[str, float]:
    """What must be there at once for a run to end: a training's workers, or one actor of data."""
    need = train_resources(compute)
    gpus = max(need.get("GPU", 0.0), compute.data_gpus)
    return need | ({"GPU": gpus} if gpus else {})


class RaySession:
    """A connection to Ray, open from construction to :meth:`close`.

    Raises:
        RuntimeUnavailable: no cluster answers at the address, or Ray does not start here.
        ConfigError: an address that this program cannot use.
    """

    def __init__(self, compute: ComputeConfig, *, dashboard: bool = False) -> None:
        """Args:
        dashboard: start it with a Ray of our own: whoever frees what dead processes held asks it.
        """
        address = cluster_address(compute)
        _prepare_environment(address)
        import ray

        self._owned = not ray.is_initialized()
        if self._owned:
            _start(compute, address, dashboard)
        in_actor = ray.get_runtime_context().get_actor_id() is not None
        self.own_ray = address is None and not in_actor  # Ray ends with this process
        if self.own_ray:
            self._check_room(compute)

    def _check_room(self, compute: ComputeConfig) -> None:
        """A cluster can grow, a Ray of our own cannot: do not wait for what will never come."""
        import ray

        need, have = _least(compute), ray.cluster_resources()
        if need.get("GPU") and not have.get("GPU"):
            self.close()
            raise no_gpu_here()
        if any(have.get(name, 0) < amount for name, amount in need.items()):
            self.close()
            raise RuntimeUnavailable(
                f"{compute.workers} training worker(s) need {text(need)}, here are {text(have)}",
                where="compute.workers, compute.gpus_per_worker, compute.num_cpus",
                fix="lower compute.workers or compute.gpus_per_worker, raise compute.num_cpus, or "
                "give the compute.address of a larger cluster",
            )

    def close(self) -> None:
        """Leave the cluster, and stop it if it is ours. Calling it twice is fine."""
        import ray

        if self._owned:
            self._owned = False
            ray.shutdown()


def _prepare_environment(address: str | None) -> None:
    """What Ray reads when it is first imported; a value that is already set wins."""
    for name, value in {**_SETTINGS, **({} if address else _LOCAL_SETTINGS)}.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" in os.environ or "ray" in sys.modules:
        return  # someone has decided; or Ray has read its settings and decides by itself
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        known = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
        stored = (Path.home() / ".ray" / "auth_token").is_file()
        os.environ["RAY_AUTH_MODE"] = "token" if known or stored else "disabled"


def _start(compute: ComputeConfig, address: str | None, dashboard: bool) -> None:
    import ray
    from ray.exceptions import RayError

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is not None:
            _check_address(address)
            with _silence():
                ray.init(address=address, **quiet)
            return
        with _silence():
            ray.init(
                address="local",  # never some other Ray that happens to run here
                num_cpus=local_cpus(compute),
                object_store_memory=compute.object_store_mb * 2**20,
                include_dashboard=dashboard,  # an open port and a process more
                **quiet,
            )
    except (RayError, RuntimeError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address is None:
            raise RuntimeUnavailable(
                f"Ray does not start on this machine: {first}",
                where="compute.runtime: ray",
                fix="free memory and disk (also below /tmp), or set compute.runtime=local",
            ) from error
        raise RuntimeUnavailable(
            f"no Ray cluster answers: {first}",
            where=f"compute.address: {address}",
            fix="check the address with: ray status --address ADDRESS; if the cluster asks for a "
            "token set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; without an address Ray starts here",
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """While Ray's C++ side starts, it writes past Python to the terminal; errors come as such."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_address(address: str) -> None:
    """Find out in seconds what Ray would need minutes for: that nobody listens there."""
    if address.startswith("ray://"):
        raise ConfigError(
            "a Ray Client address: training and data steps need a driver inside the cluster",
            where=f"compute.address: {address}",
            fix="submit the run as a job: ray job submit --working-dir . -- python jobs/run.py ...",
        )
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise ConfigError(
            "not an address", where=f"compute.address: {address}", fix="use HOST:PORT or auto"
        )
    socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def text(resources: Mapping[str, float]) -> str:
    """Resources as people write them: ``4 CPU, 1 GPU``."""
    shown = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return ", ".join(shown) or "nothing"


def shortage(need: Mapping[str, float]) -> str:
    """One line on why workers are not there yet: what is wanted and what the cluster has."""
    import ray

    have, free = ray.cluster_resources(), ray.available_resources()
    if any(have.get(name, 0) < amount for name, amount in need.items()):
        return f"waiting for resources: need {text(need)}, the cluster has {text(have)}"
    return f"workers are still starting: need {text(need)}, {text(free)} of {text(have)} free"


def describe(compute: ComputeConfig) -> str:
    """What a run would find: connects to a cluster if one is configured, starts nothing."""
    address = cluster_address(compute)
    if address is None:
        return f"none configured: a Ray with {local_cpus(compute)} logical CPUs starts for each run"
    session = RaySession(compute)
    try:
        import ray

        alive = sum(node["Alive"] for node in ray.nodes())
        secured = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        found = f"{address}: {alive} node(s) with {text(ray.cluster_resources())}"
        return found if secured else f"{found}; open to anyone who reaches it: see RAY_AUTH_MODE"
    finally:
        session.close()
