"""What tests of the runtime on Ray share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from ray_cluster import COMPUTE

from gcdis_ray.config import ComputeConfig

if TYPE_CHECKING:
    from gcdis_ray.runtime.ray_runtime import RayRuntime


@pytest.fixture(scope="module")
def runtime(ray_address: str) -> Iterator[RayRuntime]:
    """A driver in this process on the session's Ray."""
    from gcdis_ray.runtime.ray_runtime import RayRuntime

    runtime = RayRuntime(ComputeConfig(**COMPUTE, address=ray_address))
    yield runtime
    runtime.close()
