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

from gcdis_ray.backbones.modes import in_eval
from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.contrast_keys import ContrastKeys
from gcdis_ray.methods.crop_batches import CropBatches
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.model import attention_of, build_discovery_model
from gcdis_ray.methods.gcdis.objective import DiscoveryObjective
from gcdis_ray.methods.gcdis.placement import Placement
from gcdis_ray.methods.gcdis.targets import Targets
from gcdis_ray.methods.gcdis.temperature import Temperatures
from gcdis_ray.methods.hold_out_curve import HoldOutCurve
from gcdis_ray.methods.placed import PlacedClusters
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts
from gcdis_ray.methods.teacher import Teacher
from gcdis_ray.methods.trunk import Trunk
from gcdis_ray.training.task import Exchange, TrainingTask


class DiscoveryTask(TrainingTask):
    """See the module's docstring. Its parts are there once it is set up."""

    member = "encoder"

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
        """Args:
        trunk: what crops are seen through.
        snapshot_steps: finished steps after which weights are kept.
        cache_mb: decoded crops, or cached views, kept in memory up to this size; changes no
            result.
        """
        self.config, self.seed = training, problem.seed
        self.problem, self._model_config, self.discovery = problem, model, discovery
        self._trunk = trunk
        self._snapshot_steps, self._cache_mb = frozenset(snapshot_steps), cache_mb

    def setup(self, device: torch.device) -> nn.Module:
        training, problem, discovery = self.config, self.problem, self.discovery
        self.views = self._trunk.open_views(problem.crops, device, self._cache_mb)
        labels = problem.told(self.views.labels)
        self.batches = CropBatches(
            self.views, labels, training, discovery.labeled_share, discovery.augment, self.seed
        )
        encoder = self._trunk.build_encoder(attention_of(self._model_config))
        model = build_discovery_model(encoder, self._model_config.heads, problem.num_outputs)
        model = model.to(device)
        if training.precision == "bf16":  # convolutions in bf16 are fastest that way
            model = model.to(memory_format=torch.channels_last)
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
        self.curve = HoldOutCurve(problem, self.views.labels)
        return self.objective

    def batch(self, step: int, part: int) -> dict[str, Any]:
        return self.batches.batch(step, part)

    @torch.no_grad()
    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        step = int(parts[0]["step"])
        self._local = [int(part["part"]) for part in parts]
        if step == 0:
            here = StepParts(self._local, self.config.micro_batches, exchange)
            self._place(0, here)
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
            for part, number, target in zip(parts, self._local, targets, strict=True)
        ]

    @torch.no_grad()
    def after_step(self, step: int, exchange: Exchange) -> dict[str, float | Tensor]:
        finished, instances = step + 1, self.keys.step.instances_F
        parts = StepParts(self._local, self.config.micro_batches, exchange)
        self.teacher.follow(self.objective.model, step)
        self.keys.enqueue()
        self.targets.keep()
        headness = exchange.rows(self.objective.seen_headness)
        self.temperatures.update(instances, headness, finished)
        self._place(finished, parts)
        if self.curve.is_due(finished):
            with in_eval(self.objective.model):
                self.curve.measure(finished, parts, self._clusters)
        return dict(
            headness=headness.mean(),
            cluster_entropy=self.targets.entropy(),
            temperature=self.temperatures.of(instances, step).mean(),
        )

    def _place(self, finished: int, parts: StepParts) -> None:
        """Start the prototypes, if it is time."""
        if self.placement.is_due(finished):
            models = self.objective.model, self.teacher.module
            self.placement.start(*models, self.views, parts)
            self.targets.forget()

    def _clusters(self, rows: Tensor) -> Tensor:
        """By the student, as the assignments at the end: with a slow momentum, the momentum encoder
        of a short run is still what it was long ago."""
        found = [self.objective.model(view).cosines_NK for view in self.views.plain(rows)]
        return torch.cat(found).argmax(dim=1)

    def measured(self, step: int) -> Mapping[str, float]:
        return self.curve.at(step)

    def is_snapshot(self, step: int) -> bool:
        return step in self._snapshot_steps

    def snapshot(self) -> dict[str, Tensor]:
        return self.objective.model.state_dict()

    def export(self) -> Mapping[str, Any]:
        return {**self.temperatures.members(), **self.curve.members()}

    def state(self) -> Mapping[str, Any]:
        return {name: part.state() for name, part in self._kept().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, part in self._kept().items():
            part.load_state(state[name])

    def _kept(self) -> dict[str, Any]:
        """The parts that remember."""
        return dict(
            teacher=self.teacher,
            keys=self.keys,
            targets=self.targets,
            temperatures=self.temperatures,
            curve=self.curve,
        )
