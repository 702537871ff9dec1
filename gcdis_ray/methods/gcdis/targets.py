"""What the clustering loss aims at: the momentum encoder's clusters, sharpened and balanced.

Shape letters: n crops of a part, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gcdis_ray.config import TrainingConfig
from gcdis_ray.losses.clustering import sharpened_target
from gcdis_ray.methods.cluster_mass import ClusterMass
from gcdis_ray.methods.gcdis.config import DiscoveryConfig
from gcdis_ray.training.schedule import linear_course
from gcdis_ray.training.task import Exchange


class Targets:
    """Targets of each step, and the cluster mass f that balances them.

    The mass is that of about the last ``queue_size`` crops, without storing them: a running sum of
    their probabilities that forgets at the queue's rate.

    Args:
        wanted_K: shares that clusters are held to; None: all alike.
    """

    def __init__(
        self,
        config: DiscoveryConfig,
        training: TrainingConfig,
        num_classes: int,
        device: torch.device,
        wanted_K: Tensor | None = None,
    ) -> None:
        self._config, self._steps = config.target, training.steps
        self._start = config.losses.clustering_start(training.steps)
        self._mass = ClusterMass(num_classes, config.queue_size, training.batch_size, device)
        self._wanted_K = wanted_K

    def take(
        self, cosines: Sequence[Tensor], step: int, exchange: Exchange
    ) -> tuple[list[Tensor], Tensor]:
        """Targets (n, K) of each local part, from the momentum encoder's cosines (n, K), and the
        mass (K,) with this step's, over the shares wanted."""
        heat = self._temperature(step)
        probabilities = [torch.softmax(cosines_nK.float() / heat, dim=1) for cosines_nK in cosines]
        self._step_K = exchange.rows(probabilities).sum(dim=0)
        mass, balance = self._mass.earlier() + self._step_K, self._config.balance
        if self._wanted_K is not None:
            mass = mass / self._wanted_K
        if self._config.kind == "dec":
            probabilities = [sharpened_target(p_nK, mass, balance) for p_nK in probabilities]
        return probabilities, mass

    def keep(self) -> None:
        """The step is over: its mass counts."""
        self._mass.keep(self._step_K)

    def forget(self) -> None:
        """Prototypes have moved: what was counted was of the earlier ones."""
        self._mass.forget()

    def entropy(self) -> Tensor:
        """() of the mass over clusters, in nats."""
        return self._mass.entropy()

    def _temperature(self, step: int) -> float:
        """Of the momentum encoder's softmax: falls linearly once clustering has started."""
        config = self._config
        span = config.warm_share * self._steps
        done = 1.0 if span <= 0 else (step - self._start) / span
        return linear_course(config.warm_temperature, config.temperature, done)

    def state(self) -> Mapping[str, Any]:
        return self._mass.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._mass.load_state(state)
