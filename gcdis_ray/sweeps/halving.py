"""Asynchronous successive halving (ASHA; Li et al. 2020, one bracket): end poor trials early."""

from __future__ import annotations

import math

import numpy as np

from gcdis_ray.stages.objective import Direction
from gcdis_ray.sweeps.config import SchedulerConfig


class Halving:
    """Rungs at ``min_steps * reduction ** k`` steps. A trial that reaches a rung goes on unless its
    value is below the best ``1 / reduction`` share of those that reached it before."""

    def __init__(self, config: SchedulerConfig, direction: Direction) -> None:
        self._config, self._sign = config, 1 if direction == "max" else -1
        self._rungs: dict[int, dict[int, float]] = {}  # k -> trial -> value, larger is better

    def report(self, trial: int, step: int, value: float) -> bool:
        """Take in a value of a trial.

        Args:
            step: training steps finished, 1 or more.

        Returns:
            whether the trial should end.
        """
        if self._config.kind == "none" or step < self._config.min_steps:
            return False
        share = step / self._config.min_steps
        # the small term undoes the rounding of a logarithm that should be whole
        rung = self._rungs.setdefault(
            math.floor(math.log(share, self._config.reduction) + 1e-9), {}
        )
        if trial in rung:
            return False
        others = list(rung.values())
        rung[trial] = self._sign * value
        if not others:
            return False
        return rung[trial] < np.percentile(others, 100 * (1 - 1 / self._config.reduction))
