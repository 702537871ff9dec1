"""A small Ray for the tests of a session: says where it is, and ends with its input."""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest import mock

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime import ray_session

PORT = os.environ.get("RAY_GCS_SERVER_PORT")
COMPUTE = {"runtime": "ray", "num_cpus": 4, "object_store_mb": 200, "max_failures": 1}


def main() -> None:
    ray_session._prepare_environment(None)
    import ray

    def start(**kwargs: Any) -> Any:
        # Workers look here for the cluster, as on one that `ray start` made; they would wait for
        # any other that once announced itself on this machine.
        os.environ["RAY_ADDRESS"] = f"{ray.util.get_node_ip_address()}:{PORT}"
        # One GPU on paper: Ray gives it away without looking for it.
        return init(num_gpus=1, **kwargs)

    init = ray.init
    # The dashboard is there because whoever frees what dead drivers held asks it.
    with mock.patch("ray.init", start):
        session = ray_session.RaySession(ComputeConfig(**COMPUTE), dashboard=True)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    session.close()


if __name__ == "__main__":
    main()
