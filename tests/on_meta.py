"""Torch's meta device in the place of a GPU: tensors there have no values.

Whoever reads one back (item, a boolean index, a copy to the host) fails, as it would stop a GPU.
And whoever brings tensors of two devices together: meta alone lets some operations do that
(convolutions, products, indices), here each is looked at. Copies are how tensors get there, and
single numbers may lie anywhere, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gcdis_ray.data.crops import augment

_COPIES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::set_")


class DevicesMeet(AssertionError):
    """Tensors of two devices in one operation."""


class _OneDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        devices = {value.device.type for value in found if value.dim()}
        if len(devices) > 1 and func.name().partition(".")[0] not in _COPIES:
            raise DevicesMeet(f"{func} of {[(v.device.type, tuple(v.shape)) for v in found]}")
        return func(*args, **(kwargs or {}))


class _NoNoise:
    """In the place of a generator of the device, which meta has none of."""

    def __init__(self, device: Any = "cpu") -> None:
        self._device = torch.device(device)

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls) if torch.device(device).type == "meta" else torch.Generator()

    def manual_seed(self, seed: int) -> None:
        """None: what is drawn there has no values."""


@contextmanager
def like_a_gpu() -> Iterator[None]:
    """Mixed precision there is only entered and left: meta has none."""
    autocast = torch.autocast

    def entered(device: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device == "meta" else autocast(device, *args, **kwargs)

    with (
        mock.patch.object(torch, "autocast", entered),
        mock.patch.object(augment, "Generator", _NoNoise),
        _OneDevice(),
    ):
        yield


def reads_back(compute: Callable[[], Any]) -> bool:
    """Whether it asks the device for a value."""
    try:
        with like_a_gpu():
            compute()
    except (NotImplementedError, RuntimeError) as error:
        words = ("meta tensor", "unimplemented by default", "data-dependent", "no data")
        if any(word in str(error) for word in words):
            return True
        raise
    return False
