"""What a training task is: plain torch, no knowledge of Ray, strategies, files or clocks.

One step is computed in ``config.micro_batches`` equal parts. Part ``s`` runs on rank
``s * world // micro_batches``; whatever needs all parts (queues, headness, keys) is exchanged as
rows in the order of parts. So a step's result does not depend on how many workers share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig


class Exchange(Protocol):
    """Rows of all parts in the order of parts, whatever the number of workers."""

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        """Concatenate one tensor per local part (equal shapes) over all parts of the step.

        Args:
            parts: for each part of this rank, a tensor of shape (n, ...).
        Returns:
            (micro_batches * n, ...), equal on every rank, without gradient.
        """
        ...


class TrainingTask(ABC):
    """One training problem. Constructed in the driver (small, picklable), set up in the worker."""

    config: TrainingConfig
    seed: int
    member: str
    """Class attribute: name of the artifact member that holds the final weights
    (``snapshot()`` after the last step), such as ``"encoder"``."""
    same_shapes = False
    """Whether every part of every step has tensors of the same shapes."""

    @abstractmethod
    def setup(self, device: torch.device) -> nn.Module:
        """Read inputs, build modules. Returns the module to optimise; its ``forward(batch)``
        gives named losses, each a scalar tensor; ``total`` is what is differentiated. Must give
        the same module on every rank (torch is seeded from ``self.seed`` before the call). The
        loop leaves train and eval modes as they are, seeds torch anew for every part of every
        step, and keeps the mean over parts of the module's float buffers (BatchNorm). Those that
        no forward changes are better named, as :func:`~gcdis_ray.training.buffers.moving_buffers`
        says: all others cross the network in every step."""

    @abstractmethod
    def batch(self, step: int, part: int) -> Any:
        """Part ``part`` of step ``step`` (from 0): a pure function of (seed, step, part).

        Called ahead of time in background threads, perhaps in several at a time: use generators of
        your own, never torch's global one, touch nothing that a step changes, and guard what calls
        share. Tensors may stay on the CPU: the loop moves those it finds in tuples, lists and dicts
        to the module's device."""

    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        """Before the forwards: add to this rank's parts what comes from all parts. No gradient."""
        return parts

    def after_step(self, step: int, exchange: Exchange) -> Mapping[str, float | Tensor]:
        """After the optimiser: momentum encoder, queues, statistics. Returns values to log; scalar
        tensors are read when the device has got there: turning them to floats would stop it."""
        return {}

    def measured(self, step: int) -> Mapping[str, float]:
        """What was measured after ``step`` (1-based count of finished steps) and should be known
        outside at once, by name: empty for most steps. Equal on every rank."""
        return {}

    def is_snapshot(self, step: int) -> bool:
        """True if the state after ``step`` (1-based count of finished steps) is to be kept."""
        return False

    def state(self) -> Mapping[str, Any]:
        """Everything beyond module and optimiser that a resume needs: tensors, numbers, strings,
        and dicts or lists of them (it is read back without pickle's freedom). Momentum encoders
        and queues belong here, outside the optimised module; equal on every rank."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - nothing to load
        """The inverse of :meth:`state`, called after :meth:`setup`. Tensors come on the CPU."""

    @abstractmethod
    def snapshot(self) -> dict[str, Tensor]:
        """Tensors of one snapshot, or of the final export: what later stages load."""

    def export(self) -> Mapping[str, dict[str, Tensor] | pa.Table | dict | list]:
        """Members to write at the end besides ``history`` (written by the loop) and the
        snapshots (members ``snapshot_<step>``)."""
        return {}
