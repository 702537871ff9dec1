"""Which kind of device computes: the one place that knows. It is asked where the work runs.

A GPU that Ray only has on paper (``num_gpus=`` on a machine without one) means the CPU, and gloo
between workers: so what runs on GPUs can be tried without any.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import RuntimeUnavailable

Kind = Literal["cpu", "cuda"]
"""Torch's name of a device: ``cuda`` is the one GPU that its process was given."""
KINDS: tuple[Kind, ...] = ("cuda", "cpu")
Precision = Literal["fp32", "bf16"]

BACKENDS: dict[Kind, str] = {"cpu": "gloo", "cuda": "nccl"}
"""What training workers talk through."""

_DRIVERS = ("/dev/nvidia[0-9]*", "/dev/kfd")  # of GPUs that torch calls cuda
_KEYS = "compute.gpus_per_worker, compute.gpus_per_data_worker"


def gpu_share(task: object, compute: ComputeConfig) -> float:
    """GPUs that whoever runs a data step holds, 0 to 1: none unless a network runs in it."""
    return compute.data_gpus if getattr(task, "wants_gpu", False) else 0.0


def given_by_ray() -> Kind:
    """What the GPU, or the part of one, is that Ray has given to this process.

    Raises:
        RuntimeUnavailable: a GPU that torch cannot use.
    """
    if _torch_sees_one():
        return "cuda"
    if has_unusable_gpu():
        raise RuntimeUnavailable(
            f"{platform.node()} has a GPU that torch cannot use",
            where=_KEYS,
            fix="install torch for its driver on every machine, or set compute.gpus_per_worker=0",
        )
    return "cpu"


def of_this_machine() -> Kind:
    """The GPU here, without Ray.

    Raises:
        RuntimeUnavailable: none that can be used.
    """
    if _torch_sees_one():
        return "cuda"
    raise no_gpu_here()


def is_gpu_here() -> bool:
    """Whether this machine has a GPU that torch can use; torch is loaded only if it has any."""
    return _has_drivers() and _torch_sees_one()


def no_gpu_here() -> RuntimeUnavailable:
    """Says that there is no GPU, or which one is there that is not used."""
    what = "this machine has no GPU that torch can use"
    if is_apples():
        what = "Apple's GPU is not used: training is not the same there as on other devices"
    return RuntimeUnavailable(what, where=_KEYS, fix="set compute.gpus_per_worker=0")


def is_apples() -> bool:
    """Whether this is a Mac with a GPU of Apple's."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def has_unusable_gpu() -> bool:
    """Whether there is a GPU that torch does not see: of a build for CPUs, or of another driver."""
    return not _torch_sees_one() and _has_drivers()


def _has_drivers() -> bool:
    return any(any(Path("/").glob(path[1:])) for path in _DRIVERS)


def precision_on(device: str, wanted: Precision) -> Precision:
    """In which precision a trained network infers: as it was trained on a GPU; on a CPU, few of
    which have units for bf16, always in fp32."""
    return "fp32" if device == "cpu" else wanted


def _torch_sees_one() -> bool:
    import torch

    return torch.cuda.is_available()
