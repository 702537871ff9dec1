"""Training of UNO: one cross-entropy for labels and pseudo-labels.

A step: each part draws crops and two views of each; all heads look at them ahead of the step, and
of all parts together come the pseudo-labels
(:class:`~gcdis_ray.methods.uno.pseudo_labels.PseudoLabels`); then every head learns to say of one
view what was said of the other (:class:`~gcdis_ray.methods.uno.objective.UnoObjective`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.crop_task import CropTask
from gcdis_ray.methods.look_ahead import look_ahead
from gcdis_ray.methods.placed import PlacedClusters
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.remembered_crops import remembered_crops
from gcdis_ray.methods.trunk import Trunk
from gcdis_ray.methods.uno.config import Config
from gcdis_ray.methods.uno.model import build_uno
from gcdis_ray.methods.uno.network import UnoNetwork
from gcdis_ray.methods.uno.objective import UnoObjective
from gcdis_ray.methods.uno.pseudo_labels import PseudoLabels, told
from gcdis_ray.training.task import Exchange


class UnoTask(CropTask):
    """See the module's docstring. Its parts are there once it is set up."""

    network: UnoNetwork

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
        config, problem = self.options, self.problem
        labels = self.open_crops(config.labeled_share, config.augment, device)
        network = build_uno(
            self.trunk.build_encoder(),
            config.heads,
            config.novel,
            problem.num_told,
            problem.num_outputs,
        )
        self.network = self.on_device(network, device)
        self.objective = UnoObjective(self.network, config.temperature)
        self.placed = PlacedClusters(problem, labels, config, device)
        shares_K = self.placed.shares_of_unlabeled()
        crops = config.pseudo_labels.crops
        remembered = remembered_crops(crops, problem.num_outputs, len(labels))
        known_L, novel = shares_K.tensor_split([problem.num_told])
        over_J = torch.cat([known_L, novel.repeat(config.novel.over_factor)])
        kinds = [("targets", config.novel.heads, shares_K)]
        if config.novel.over_heads:
            kinds.append(("over_targets", config.novel.over_heads, over_J))
        self.pseudo = {
            name: PseudoLabels(
                config.pseudo_labels, self.config, heads, problem.num_told, shares, remembered
            )
            for name, heads, shares in kinds
        }
        return self.objective

    @torch.no_grad()
    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        step = int(parts[0]["step"])
        self.share(parts, exchange)
        views = [torch.cat([part["images"], part["second"]]) for part in parts]
        seen = look_ahead(self.network, self.network.headed, views, self.config)
        cosines = {"targets": [found.cosines_NHK for found in seen]}
        cosines["over_targets"] = [found.over_NOJ for found in seen]
        targets = {
            name: pseudo.take(cosines[name], parts, exchange)
            for name, pseudo in self.pseudo.items()
        }
        return [
            part | {name: self._whole(name, rows[i], part, step) for name, rows in targets.items()}
            for i, part in enumerate(parts)
        ]

    def _whole(self, name: str, pseudo: Tensor, part: Mapping[str, Any], step: int) -> Tensor:
        """Labels of labeled crops, and for others the pseudo-labels or the clusters they were
        placed in.

        Args:
            pseudo: (n, V, H, K).
        """
        config, (heads, outputs) = self.options, pseudo.shape[2:]
        labels = part["labels"]
        placed = self.placed.of_unlabeled(part)
        if name != "targets":  # a cluster of the others is none of theirs
            placed = torch.where(placed < self.problem.num_told, placed, -1)
        placed = told(placed, heads, outputs)
        if step < config.pseudo_labels.after * self.config.steps:
            pseudo = placed if config.start == "placed" else torch.zeros_like(pseudo)
        elif config.pseudo_labels.anchor and name == "targets":
            pseudo = torch.lerp(pseudo, placed, config.pseudo_labels.anchor)
        return told(labels, heads, outputs) + pseudo

    @torch.no_grad()
    def after_step(self, step: int, exchange: Exchange) -> dict[str, float | Tensor]:
        for pseudo in self.pseudo.values():
            pseudo.keep()
        self.measure(step + 1)
        return {}

    def remembered(self) -> Mapping[str, Any]:
        return {**super().remembered(), **self.pseudo}
