"""Training of SimGCD: two views, a student that teaches itself, no momentum encoder and no queue.

A step: each part draws crops and two views of each; both go through the student; what it says of
one view, sharpened and without gradient, is what it has to say of the other
(:class:`~gcdis_ray.methods.simgcd.objective.SimGCDObjective`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.cluster_mass import ClusterMass
from gcdis_ray.methods.crop_task import CropTask
from gcdis_ray.methods.discovery_model import DiscoveryModel, build_discovery_model
from gcdis_ray.methods.placed import PlacedClusters
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.remembered_crops import remembered_crops
from gcdis_ray.methods.simgcd.config import Config
from gcdis_ray.methods.simgcd.objective import SimGCDObjective
from gcdis_ray.methods.trunk import Trunk
from gcdis_ray.training.schedule import linear_course
from gcdis_ray.training.task import Exchange


class SimGCDTask(CropTask):
    """See the module's docstring. Its parts are there once it is set up."""

    network: DiscoveryModel

    def __init__(
        self,
        problem: Problem,
        training: TrainingConfig,
        config: Config,
        trunk: Trunk,
        *,
        snapshot_steps: Sequence[int] = (),
        cache_mb: int = 2000,
    ) -> None:
        super().__init__(problem, training, trunk, snapshot_steps=snapshot_steps, cache_mb=cache_mb)
        self.options = config

    def setup(self, device: torch.device) -> nn.Module:
        training, problem, config = self.config, self.problem, self.options
        labels = self.open_crops(config.labeled_share, config.augment, device)
        encoder = self.trunk.build_encoder()
        network = build_discovery_model(encoder, config.heads, problem.num_outputs)
        self.network = self.on_device(network, device)
        self.objective = SimGCDObjective(self.network, config.losses, training.micro_batches)
        remembered = remembered_crops(config.losses.balance_crops, problem.num_outputs, len(labels))
        self.mass = ClusterMass(problem.num_outputs, remembered, training.batch_size, device)
        self.placed = PlacedClusters(problem, labels, config, device)
        self.shares = self.placed.shares_of_batch(config.labeled_share)
        return self.objective

    @torch.no_grad()
    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        step, here = int(parts[0]["step"]), self.share(parts, exchange)
        if step == 0 and self.options.start == "placed":
            heat = self.options.losses.softmax_temperature
            self.placed.start(self.network, self.views, here, heat, self.seed)
        self.objective.seen_mass.clear()
        num_labeled = here.mean([(part["labels"] >= 0).sum() for part in parts])
        shared = dict(
            num_labeled=num_labeled,
            num_anchors=self.batches.part_size - num_labeled,
            teacher_temperature=self._temperature(step),
            mass=self.mass.earlier(),
            shares=self.shares,
        )
        return [{**part, **shared, "anchors": self.placed.of_unlabeled(part)} for part in parts]

    @torch.no_grad()
    def after_step(self, step: int, exchange: Exchange) -> dict[str, float | Tensor]:
        self.mass.keep(exchange.rows(self.objective.seen_mass).sum(dim=0))
        self.measure(step + 1)
        return {"cluster_entropy": self.mass.entropy()}

    def remembered(self) -> Mapping[str, Any]:
        return {**super().remembered(), "mass": self.mass}

    def _temperature(self, step: int) -> float:
        """Of the view that teaches: falls linearly, then stays."""
        losses, span = self.options.losses, self.options.losses.warm_share * self.config.steps
        done = step / span if span else 1.0
        return linear_course(losses.warm_temperature, losses.teacher_temperature, done)
