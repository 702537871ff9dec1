"""Keys that crops are contrasted with: those of the step at hand and a queue of earlier ones.

Shape letters: F keys of a step, V queued keys, M = F + V, D key length, n crops of a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gcdis_ray.config import TrainingConfig
from gcdis_ray.models.queue import FeatureQueue
from gcdis_ray.training.task import Exchange


class StepKeys(NamedTuple):
    """Of all parts of a step, in the order of parts."""

    keys_FD: Tensor
    labels_F: Tensor  # -1 for an unlabeled crop
    instances_F: Tensor


class ContrastKeys:
    """Takes the keys of each step, shows them before the queue's, and lets them join it.

    Args:
        queue_size: keys kept from earlier steps.
        queued_contrast: False: only keys of the same step are contrasted with.
    """

    def __init__(
        self,
        queue_size: int,
        dim: int,
        training: TrainingConfig,
        device: torch.device,
        *,
        queued_contrast: bool = True,
    ) -> None:
        self._num_parts = training.micro_batches
        self._part_size = training.batch_size // training.micro_batches
        self._queued_contrast, self._device = queued_contrast, device
        size = self._part_size * self._num_parts
        self.queue = FeatureQueue(queue_size, dim, device, front=size)
        self.step: StepKeys

    def take(
        self,
        keys: Sequence[Tensor],
        parts: Sequence[Mapping[str, Any]],
        exchange: Exchange,
    ) -> dict[str, Any]:
        """The keys of a new step.

        Args:
            keys: (n, D) of each local part.
            parts: ``labels`` and ``instances`` (n,) of each.

        Returns:
            ``keys`` (M, D), ``key_labels`` and ``key_instances`` (M,), those of the step first and
            in place; ``num_contrasted``: how many of the first are contrasted with;
            ``num_labeled`` (): labeled crops in a mean part of the step.
        """
        self.step = StepKeys(
            exchange.rows(keys),
            exchange.rows([part["labels"] for part in parts]),
            exchange.rows([part["instances"] for part in parts]),
        )
        keys_MD, labels_M, instances_M = self.queue.show(*self.step)
        num_queued = self.queue.num_valid if self._queued_contrast else 0
        return dict(
            keys=keys_MD,
            key_labels=labels_M,
            key_instances=instances_M,
            num_contrasted=len(self.step.keys_FD) + num_queued,
            num_labeled=(self.step.labels_F >= 0).sum() / self._num_parts,
        )

    def own(self, part: int) -> Tensor:
        """(n,) where the keys of a part's own crops are."""
        return torch.arange(self._part_size, device=self._device) + part * self._part_size

    def enqueue(self) -> None:
        """The step is over: its keys join the queue."""
        self.queue.enqueue(*self.step)

    def state(self) -> Mapping[str, Any]:
        return self.queue.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.queue.load_state(dict(state))
