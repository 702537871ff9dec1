"""A small Ray for the tests of a session: says where it is, and ends with its input."""

from __future__ import annotations

import sys
from functools import partial
from unittest import mock

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime import ray_session

COMPUTE = {"runtime": "ray", "num_cpus": 4, "object_store_mb": 200, "max_failures": 1}


def main() -> None:
    ray_session._prepare_environment(None)
    import ray

    # One GPU on paper: Ray gives it away without looking for it. The dashboard is there because
    # whoever frees what dead drivers held asks it.
    with mock.patch("ray.init", partial(ray.init, num_gpus=1)):
        session = ray_session.RaySession(ComputeConfig(**COMPUTE), dashboard=True)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    session.close()


if __name__ == "__main__":
    main()
