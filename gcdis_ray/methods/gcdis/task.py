"""Training of the discovery model f_d: two views, momentum encoder, queue, five losses.

A step: each part draws crops and two views of each (:meth:`DiscoveryTask.batch`); the momentum
encoder turns second views into keys and targets, and parts swap them (:meth:`prepare`); the student
learns from first views (:class:`~gcdis_ray.methods.gcdis.objective.DiscoveryObjective`); then the
momentum encoder, the queue, cluster mass and temperatures follow (:meth:`after_step`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.contrast_keys import ContrastKeys
from gcdis_ray.methods.crop_task import CropTask
from gcdis_ray.methods.discovery_model import DiscoveryModel, build_discovery_model
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.model import attention_of
from gcdis_ray.methods.gcdis.objective import DiscoveryObjective
from gcdis_ray.methods.gcdis.placement import Placement
from gcdis_ray.methods.gcdis.targets import Targets
from gcdis_ray.methods.gcdis.temperature import Temperatures
from gcdis_ray.methods.placed import PlacedClusters
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.teacher import Teacher
from gcdis_ray.methods.trunk import Trunk
from gcdis_ray.training.task import Exchange


class DiscoveryTask(CropTask):
    """See the module's docstring. Its parts are there once it is set up."""

    network: DiscoveryModel

    def __init__(
        self,
        problem: Problem,
        training: TrainingConfig,
        model: ModelConfig,
        discovery: DiscoveryConfig,
        trunk: Trunk,
        *,
        snapshot_steps: Sequence[int] = (),
        cache_mb: int = 2000,
    ) -> None:
        super().__init__(problem, training, trunk, snapshot_steps=snapshot_steps, cache_mb=cache_mb)
        self._model_config, self.discovery = model, discovery

    def setup(self, device: torch.device) -> nn.Module:
        training, problem, discovery = self.config, self.problem, self.discovery
        labels = self.open_crops(discovery.labeled_share, discovery.augment, device)
        encoder = self.trunk.build_encoder(attention_of(self._model_config))
        model = build_discovery_model(encoder, self._model_config.heads, problem.num_outputs)
        self.network = model = self.on_device(model, device)
        self.objective = DiscoveryObjective(model, self._model_config, discovery)
        self.teacher = Teacher(model, training, discovery.momentum, discovery.momentum_start)
        self.keys = ContrastKeys(
            discovery.queue_size,
            self._model_config.heads.projection_dim,
            training,
            device,
            queued_contrast=discovery.negatives == "queue",
        )
        self.placed = PlacedClusters(problem, labels, discovery, device)
        wanted = None
        if discovery.sizes == "placed":
            wanted = self.placed.shares_of_batch(discovery.labeled_share)
        self.targets = Targets(discovery, training, problem.num_outputs, device, wanted)
        self.temperatures = Temperatures(
            discovery.temperature, len(labels), self.batches.epoch_steps, training.steps, device
        )
        self.placement = Placement(discovery, problem, labels, self.placed, training.steps)
        return self.objective

    @torch.no_grad()
    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        step, here = int(parts[0]["step"]), self.share(parts, exchange)
        if step == 0:
            self._place(0)
        self.objective.seen_headness.clear()
        seen = self.teacher.look(parts)
        shared = self.keys.take([out.projections_ND.float() for out in seen], parts, exchange)
        targets, mass = self.targets.take([out.cosines_NK for out in seen], step, exchange)
        start = self.discovery.losses.clustering_start(self.config.steps)
        return [
            {
                **part,
                **shared,
                "own": self.keys.own(number),
                "temperatures": self.temperatures.of(part["instances"], step),
                "targets": target,
                "mass": mass,
                "clusters": float(step >= start),
                "anchors": self.placed.of_unlabeled(part),
            }
            for part, number, target in zip(parts, here.local, targets, strict=True)
        ]

    @torch.no_grad()
    def after_step(self, step: int, exchange: Exchange) -> dict[str, float | Tensor]:
        finished, instances = step + 1, self.keys.step.instances_F
        self.teacher.follow(self.network, step)
        self.keys.enqueue()
        self.targets.keep()
        headness = exchange.rows(self.objective.seen_headness)
        self.temperatures.update(instances, headness, finished)
        self._place(finished)
        self.measure(finished)
        return dict(
            headness=headness.mean(),
            cluster_entropy=self.targets.entropy(),
            temperature=self.temperatures.of(instances, step).mean(),
        )

    def _place(self, finished: int) -> None:
        """Start the prototypes, if it is time."""
        if self.placement.is_due(finished):
            self.placement.start(self.network, self.teacher.module, self.views, self.here)
            self.targets.forget()

    def export(self) -> Mapping[str, Any]:
        return {**self.temperatures.members(), **super().export()}

    def remembered(self) -> Mapping[str, Any]:
        return dict(
            super().remembered(),
            teacher=self.teacher,
            keys=self.keys,
            targets=self.targets,
            temperatures=self.temperatures,
        )
