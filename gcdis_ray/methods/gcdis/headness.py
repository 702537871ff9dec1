"""Headness: how crowded the place of an instance is, and the temperature that it gives (ITA of
GCDIS): frequent looks get a large one, rare ones a small one.

Shape letters: N anchors, M keys, D projection, I instances of the data set.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_NO_SPREAD = 1e-5  # relative: closer values differ by rounding alone


def headness(similarities_NM: Tensor, foreign_NM: Tensor, neighbor_share: float) -> Tensor:
    """h_i: share of exp(z_i . z'_j) that the nearest keys hold; no temperature inside.

    The nearest are the top ``neighbor_share`` of the keys of other instances, at least one. An
    anchor's own keys, of whatever age, are no neighbours and no denominator.

    Args:
        similarities_NM: z_i . z'_j of unit vectors, in full precision: shares differ by little.
        foreign_NM: whether key j shows another instance than anchor i.

    Returns:
        (N,) in (0, 1]; zeros where no other instance has a key.
    """
    weights_NM = torch.exp(similarities_NM) * foreign_NM
    if weights_NM.shape[1] == 0:
        return torch.zeros(len(weights_NM), device=weights_NM.device)
    num_near = max(1, round(neighbor_share * weights_NM.shape[1]))
    near_N = weights_NM.topk(num_near, dim=1).values.sum(dim=1)
    return near_N / weights_NM.sum(dim=1).clamp(min=1e-12)


class HeadnessTable:
    """Running headness h of every instance and the temperature it gives.

    h_i <- phi h_i + (1 - phi) h_hat_i, read with bias correction (divided by 1 - phi^visits), so
    that the first visits already count. :meth:`assign` turns h into temperatures, linearly between
    the 10th and 90th percentile of the instances visited so far; it is meant to run once an epoch.
    Until it has run, and for instances never visited, the temperature is ``minimum``.

    Args:
        num_instances: I.
        momentum: phi, 0.97 in the paper (per visit).
        minimum, maximum: temperature range, 0.07 and 1.0 in the paper.
    """

    def __init__(
        self,
        num_instances: int,
        momentum: float,
        minimum: float,
        maximum: float,
        device: torch.device | None = None,
    ) -> None:
        self.momentum, self.minimum, self.maximum = momentum, minimum, maximum
        self._sum_I = torch.zeros(num_instances, device=device)
        self._visits_I = torch.zeros(num_instances, dtype=torch.int64, device=device)
        self.temperatures = torch.full((num_instances,), minimum, device=device)

    def update(self, instances_N: Tensor, headness_N: Tensor) -> None:
        """One visit each. An instance seen twice in a batch counts once, with its mean."""
        same_NN = instances_N[:, None] == instances_N[None, :]  # unlike unique(), no wait for a GPU
        mean_N = torch.where(same_NN, headness_N.to(self._sum_I.dtype), 0.0).sum(dim=1)
        mean_N = mean_N / same_NN.sum(dim=1)
        old_N = self._sum_I[instances_N]
        self._sum_I[instances_N] = self.momentum * old_N + (1 - self.momentum) * mean_N
        self._visits_I[instances_N] = self._visits_I[instances_N] + 1

    @property
    def visited(self) -> Tensor:
        """(I,) bool."""
        return self._visits_I > 0

    @property
    def values(self) -> Tensor:
        """(I,) bias-corrected headness, 0 for an instance never visited."""
        correction = 1 - self.momentum ** self._visits_I.clamp(min=1).to(torch.float64)
        return (self._sum_I / correction).to(self._sum_I.dtype)

    def assign(self) -> None:
        """Recompute all temperatures. Without spread (h90 = h10) they stay where they are."""
        if not bool(self.visited.any()):
            return
        values_I = self.values
        seen = values_I[self.visited].sort().values
        low, high = _percentile(seen, 0.1), _percentile(seen, 0.9)
        if high - low <= _NO_SPREAD * high:
            return
        scale_I = ((values_I - low) / (high - low)).clamp(0.0, 1.0)
        spread_I = self.minimum + (self.maximum - self.minimum) * scale_I
        self.temperatures = torch.where(self.visited, spread_I, self.minimum)

    def state(self) -> dict[str, Any]:
        return dict(
            sum=self._sum_I.clone(),
            visits=self._visits_I.clone(),
            temperatures=self.temperatures.clone(),
        )

    def load_state(self, state: dict[str, Any]) -> None:
        self._sum_I.copy_(state["sum"])
        self._visits_I.copy_(state["visits"])
        self.temperatures = state["temperatures"].to(self._sum_I.device).clone()


def _percentile(ordered: Tensor, share: float) -> float:
    """Linear between neighbours; torch.quantile refuses more than 16 million values."""
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
