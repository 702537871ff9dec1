"""How much probability each cluster has been given lately.

Shape letter: K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ClusterMass:
    """Probabilities of about the last ``crops`` crops, summed without storing them: a running sum
    that forgets at the rate of a queue of that length.

    Args:
        crops: at least 0; 0 forgets every earlier step.
        step_crops: crops of a step.
    """

    def __init__(
        self, num_clusters: int, crops: int, step_crops: int, device: torch.device
    ) -> None:
        self._kept_share = max(0.0, 1 - step_crops / crops) if crops else 0.0
        self._device = device
        self._mass_K = torch.zeros(num_clusters, device=device)

    def earlier(self) -> Tensor:
        """(K,) of the steps before the one at hand."""
        return self._mass_K * self._kept_share

    def keep(self, mass_K: Tensor) -> None:
        """The step is over.

        Args:
            mass_K: of all its crops.
        """
        self._mass_K = self.earlier() + mass_K

    def forget(self) -> None:
        """What was counted was of other clusters."""
        self._mass_K = torch.zeros_like(self._mass_K)

    def entropy(self) -> Tensor:
        """() of the mass over clusters, in nats."""
        share_K = self._mass_K / self._mass_K.sum().clamp(min=1e-12)
        return torch.special.entr(share_K).sum()

    def state(self) -> Mapping[str, Any]:
        return {"mass": self._mass_K}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._mass_K = state["mass"].to(self._device)
