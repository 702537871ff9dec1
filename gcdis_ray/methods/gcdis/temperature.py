"""Temperature of the contrastive losses: by instance (ITA of GCDIS), fixed, or one wave for all.

Shape letter: N crops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gcdis_ray.methods.gcdis.config import TemperatureConfig
from gcdis_ray.methods.gcdis.headness import HeadnessTable


class Temperatures:
    """The temperature of every instance at every step. Headness is followed in every mode.

    Args:
        num_instances: crops of the data set.
        epoch_steps: after as many steps, headness turns into temperatures anew.
        steps: of the whole training.
    """

    def __init__(
        self,
        config: TemperatureConfig,
        num_instances: int,
        epoch_steps: int,
        steps: int,
        device: torch.device,
    ) -> None:
        self._config, self._device = config, device
        self._num_instances, self._epoch_steps, self._steps = num_instances, epoch_steps, steps
        self.table = HeadnessTable(
            num_instances, config.momentum, config.minimum, config.maximum, device
        )

    def of(self, instances_N: Tensor, step: int) -> Tensor:
        """(N,) at ``step`` (from 0)."""
        config = self._config
        if config.mode == "instance":
            return self.table.temperatures[instances_N]
        value = config.minimum
        if config.mode == "cosine":
            value = cosine_temperature(
                step / self._steps, config.minimum, config.maximum, config.cosine_periods
            )
        return torch.full(instances_N.shape, value, device=self._device)

    def update(self, instances_N: Tensor, headness_N: Tensor, finished: int) -> None:
        """What a step measured; ``finished`` counts it."""
        self.table.update(instances_N, headness_N)
        epoch, rest = divmod(finished, self._epoch_steps)
        if rest == 0 and epoch >= self._config.warmup_epochs:
            self.table.assign()

    def members(self) -> Mapping[str, dict[str, Tensor]]:
        """``instance_state``: headness and final temperature of every instance."""
        every = torch.arange(self._num_instances, device=self._device)
        state = dict(headness=self.table.values, temperature=self.of(every, self._steps))
        return {"instance_state": state}

    def state(self) -> Mapping[str, Any]:
        return self.table.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.table.load_state(dict(state))


def cosine_temperature(progress: float, minimum: float, maximum: float, periods: float) -> float:
    """One temperature for all, a cosine between minimum and maximum (Kukleva et al. 2023).

    Args:
        progress: share of training done, in [0, 1].
        periods: full waves over the training; starts at the maximum.
    """
    wave = (1 + math.cos(2 * math.pi * periods * progress)) / 2
    return minimum + (maximum - minimum) * wave
