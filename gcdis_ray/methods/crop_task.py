"""A training on two views of crops: what trained methods have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods.crop_batches import CropBatches
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.hold_out_curve import HoldOutCurve
from gcdis_ray.methods.placed_config import PlacedConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts
from gcdis_ray.models.eval_mode import in_eval
from gcdis_ray.training.task import Exchange, TrainingTask


class CropTask(TrainingTask):
    """Draws the crops of a step, measures the hold-out, and keeps snapshots of its network.

    :meth:`setup` of a method calls :meth:`see` and makes ``network``, which says of views what class
    they show (``cosines_NK``); its state is a snapshot.

    Args:
        snapshot_steps: finished steps after which weights are kept.
    """

    member = "encoder"
    views: CropViews
    batches: CropBatches
    curve: HoldOutCurve
    network: nn.Module

    def __init__(
        self, problem: Problem, training: TrainingConfig, snapshot_steps: Sequence[int]
    ) -> None:
        self.problem, self.config, self.seed = problem, training, problem.seed
        self._snapshot_steps = frozenset(snapshot_steps)

    def see(self, config: PlacedConfig, device: torch.device) -> Tensor:
        """Make ``views``, ``batches`` and ``curve``.

        Returns:
            (N,) int64 on the CPU, the output each crop is trained on, -1 for an unlabeled one.
        """
        store = CropStore(self.problem.crops, config.cache_px, config.cache_mb)
        labels = self.problem.told(store.labels)
        encoder = config.encoder
        self.views = CropViews(
            store, encoder.input_px, mask_input=encoder.mask_input, device=device
        )
        self.batches = CropBatches(
            self.views, labels, self.config, config.labeled_share, config.augment, self.seed
        )
        self.curve = HoldOutCurve(self.problem, store.labels)
        return labels

    def remembered(self) -> Mapping[str, Any]:
        """Parts, by name, with a ``state`` that outlives a step."""
        return {"curve": self.curve}

    def batch(self, step: int, part: int) -> dict[str, Any]:
        return self.batches.batch(step, part)

    def step_parts(self, parts: Sequence[Mapping[str, Any]], exchange: Exchange) -> StepParts:
        """Those of this rank; kept until the step is over."""
        numbers = [int(part["part"]) for part in parts]
        self.here = StepParts(numbers, self.config.micro_batches, exchange)
        return self.here

    @torch.no_grad()
    def measure(self, finished: int) -> None:
        """The hold-out, if it is due."""
        if self.curve.is_due(finished):
            with in_eval(self.network):
                self.curve.measure(finished, self.here, self._clusters)

    def _clusters(self, rows: Tensor) -> Tensor:
        found = [self.network(view).cosines_NK for view in self.views.plain(rows)]
        return torch.cat(found).argmax(dim=1)

    def measured(self, step: int) -> Mapping[str, float]:
        return self.curve.at(step)

    def is_snapshot(self, step: int) -> bool:
        return step in self._snapshot_steps

    def snapshot(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def export(self) -> Mapping[str, Any]:
        return self.curve.members()

    def state(self) -> Mapping[str, Any]:
        return {name: part.state() for name, part in self.remembered().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, part in self.remembered().items():
            part.load_state(state[name])
