"""The runtime that a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcdis_ray.config import ComputeConfig
    from gcdis_ray.runtime.base import Runtime


class LazyRuntime:
    """Starts the runtime when the first stage needs it, so a cached run starts no Ray."""

    def __init__(self, compute: ComputeConfig, *, dashboard: bool = False) -> None:
        """Args: dashboard: as of :class:`~gcdis_ray.runtime.ray_session.RaySession`."""
        self._compute, self._dashboard, self._runtime = compute, dashboard, None

    def __call__(self) -> Runtime:
        if self._runtime is None:
            if self._compute.runtime == "local":
                from gcdis_ray.runtime.local import LocalRuntime

                self._runtime = LocalRuntime(self._compute)
            else:
                from gcdis_ray.runtime.ray_runtime import RayRuntime

                self._runtime = RayRuntime(self._compute, dashboard=self._dashboard)
        return self._runtime

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()
