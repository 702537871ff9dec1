"""A small Ray for the tests of a session: says where it is, and ends with its input."""

from __future__ import annotations

import sys

from gcdis_ray.config import ComputeConfig
from gcdis_ray.runtime.ray_session import RaySession

COMPUTE = {"runtime": "ray", "num_cpus": 4, "object_store_mb": 200, "max_failures": 1}


def main() -> None:
    session = RaySession(
        ComputeConfig(**COMPUTE), dashboard=True
    )  # who frees what dead drivers held asks it
    import ray

    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    session.close()


if __name__ == "__main__":
    main()
