"""What Ray's GPUs are: asked of a process that was given one, since the driver may have none."""

from __future__ import annotations

from collections.abc import Callable

import ray

from gcdis_ray.errors import RuntimeUnavailable
from gcdis_ray.runtime.devices import Kind, given_by_ray
from gcdis_ray.runtime.ray_session import shortage


def kind_of_gpus(share: float, wait_s: float, waiting: Callable[[str], None]) -> Kind:
    """What a worker gets that asks for so much of a GPU.

    Args:
        share: of a GPU, above 0.
        wait_s, waiting: after so many seconds without one, and again, a line for people.

    Raises:
        RuntimeUnavailable: a GPU that torch cannot use.
    """
    answer = ray.remote(num_cpus=0, num_gpus=share)(_ask).remote()
    while not ray.wait([answer], timeout=wait_s)[0]:
        waiting(shortage({"GPU": share}))
    found = ray.get(answer)
    if isinstance(found, RuntimeUnavailable):
        raise found
    return found


def check_kind(told: Kind, share: float) -> None:
    """Args:
        told: what :func:`kind_of_gpus` found elsewhere.
        share: of a GPU that this process was given.

    Raises:
        RuntimeUnavailable: another kind than told: one table is made by one kind of device.
    """
    if share and (found := given_by_ray()) != told:
        raise RuntimeUnavailable(
            f"the GPU of one worker means {told}, that of another {found}",
            where="compute.gpus_per_worker, compute.gpus_per_data_worker",
            fix="take nodes whose GPUs are only on paper out of the cluster, or install torch for "
            "GPUs on all of them",
        )


def _ask() -> Kind | RuntimeUnavailable:
    try:
        return given_by_ray()
    except RuntimeUnavailable as error:
        return error  # as a value: it reaches the driver as it is
