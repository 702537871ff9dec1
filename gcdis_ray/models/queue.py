"""Ring of the newest keys, with the labels and instances they came from.

Shape letters: Q capacity, V filled rows, N incoming rows, F rows in front, D key length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FeatureQueue:
    """The last ``capacity`` keys. Slots that were never filled are never shown.

    In front of the ring there is room for the keys of the step at hand, so that they and the ring
    are one matrix without copying the ring.

    Args:
        capacity: Q, at least 1.
        dim: D.
        front: F, keys of one step.
    """

    def __init__(
        self, capacity: int, dim: int, device: torch.device | None = None, *, front: int = 0
    ) -> None:
        self.capacity, self.front = capacity, front
        self._all_keys = torch.zeros(front + capacity, dim, device=device)
        self._all_labels = torch.full((front + capacity,), -1, dtype=torch.int64, device=device)
        self._all_instances = torch.full_like(self._all_labels, -1)
        self._keys_QD = self._all_keys[front:]
        self._labels_Q, self._instances_Q = self._all_labels[front:], self._all_instances[front:]
        self._next = 0
        self.num_valid = 0

    @torch.no_grad()
    def show(
        self, keys_FD: Tensor, labels_F: Tensor, instances_F: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The given keys, then the ring's: (F + V, D), labels and instances (F + V,).

        Views: the next call overwrites the first F rows, :meth:`enqueue` some of the others.
        """
        self._all_keys[: self.front] = keys_FD
        self._all_labels[: self.front] = labels_F
        self._all_instances[: self.front] = instances_F
        end = self.front + self.num_valid
        return self._all_keys[:end], self._all_labels[:end], self._all_instances[:end]

    @torch.no_grad()
    def enqueue(self, keys_ND: Tensor, labels_N: Tensor, instances_N: Tensor) -> None:
        """Add N keys, oldest out first. Any N: of more than ``capacity`` the last ones stay."""
        keys_ND, labels_N, instances_N = (
            rows[-self.capacity :] for rows in (keys_ND, labels_N, instances_N)
        )
        num = keys_ND.shape[0]
        slots = (self._next + torch.arange(num, device=self._keys_QD.device)) % self.capacity
        self._keys_QD[slots] = keys_ND.to(self._keys_QD.dtype)
        self._labels_Q[slots] = labels_N
        self._instances_Q[slots] = instances_N
        self._next = (self._next + num) % self.capacity
        self.num_valid = min(self.capacity, self.num_valid + num)

    def state(self) -> dict[str, Any]:
        return dict(
            keys=self._keys_QD.clone(),
            labels=self._labels_Q.clone(),
            instances=self._instances_Q.clone(),
            next=self._next,
            num_valid=self.num_valid,
        )

    def load_state(self, state: dict[str, Any]) -> None:
        self._keys_QD.copy_(state["keys"])
        self._labels_Q.copy_(state["labels"])
        self._instances_Q.copy_(state["instances"])
        self._next, self.num_valid = int(state["next"]), int(state["num_valid"])
