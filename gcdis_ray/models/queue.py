"""Ring of the newest keys, with the labels and instances they came from.

Shape letters: Q capacity, V filled rows, N incoming rows, D key length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FeatureQueue:
    """The last ``capacity`` keys. Slots that were never filled are never shown.

    Args:
        capacity: Q, at least 1.
        dim: D.
    """

    def __init__(self, capacity: int, dim: int, device: torch.device | None = None) -> None:
        self.capacity = capacity
        self._keys_QD = torch.zeros(capacity, dim, device=device)
        self._labels_Q = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self._instances_Q = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self._next = 0
        self.num_valid = 0

    @property
    def keys(self) -> Tensor:
        """(V, D); order is not meaningful once the ring has wrapped."""
        return self._keys_QD[: self.num_valid]

    @property
    def labels(self) -> Tensor:
        """(V,) class index, -1 for an unlabeled key."""
        return self._labels_Q[: self.num_valid]

    @property
    def instances(self) -> Tensor:
        """(V,) index of the crop each key shows."""
        return self._instances_Q[: self.num_valid]

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
