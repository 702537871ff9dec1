"""SimGCD's network with its losses: the module that training optimises.

Shape letters: V = 2 views, n crops of a part, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.losses.clustering import balance_loss, classification_loss
from gcdis_ray.losses.contrastive import (
    class_contrastive_loss,
    contrastive_log_probabilities,
    instance_contrastive_loss,
)
from gcdis_ray.losses.swapped import swapped_prediction_loss
from gcdis_ray.methods.discovery_model import Discovered, DiscoveryModel
from gcdis_ray.methods.simgcd.config import LossesConfig


class SimGCDObjective(nn.Module):
    """``forward(batch)`` gives the named losses of one part of a step.

    total = (1 - lambda) (distillation + balance + instance + anchor) + lambda (supervised + class),
    each with its weight: sections 3.2 and 4.1 of the paper, and the anchor, which is ours.

    Detached probabilities of the last forwards, summed over crops, wait in ``seen_mass`` (one (1,
    K) per part, in order) until the task collects them.
    """

    def __init__(self, model: DiscoveryModel, config: LossesConfig, parts: int) -> None:
        """Args: parts: of a step, over all workers."""
        super().__init__()
        self.model, self._config, self._parts = model, config, parts
        self.seen_mass: list[Tensor] = []

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Args:
        batch: ``images`` and ``second`` (n, ...), two views; ``labels``, ``instances`` and
            ``anchors`` (n,), -1 for none; ``num_labeled`` and ``num_anchors``, means over the parts
            of the step; ``teacher_temperature``; ``mass`` (K,) of earlier steps; ``shares`` (K,)
            that clusters should have.
        """
        found: Discovered = self.model(torch.cat([batch["images"], batch["second"]]))
        with torch.autocast(batch["images"].device.type, enabled=False):  # temperatures divide
            return self._losses(found, batch)

    def _losses(self, found: Discovered, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        config, heat = self._config, self._config.softmax_temperature
        cosines = found.cosines_NK.float()
        labels = batch["labels"].repeat(2)
        cosines_VnK = cosines.unflatten(0, (2, -1))
        targets_VnK = torch.softmax(cosines_VnK.detach() / batch["teacher_temperature"], dim=2)
        own_K = torch.softmax(cosines.detach() / heat, dim=1).sum(dim=0) / 2
        self.seen_mass.append(own_K[None])
        mass_K = batch["mass"] + self._parts * own_K
        losses = self._contrast(found.projections_ND.float(), batch) | dict(
            distillation=swapped_prediction_loss(targets_VnK, cosines_VnK, heat),
            supervised=classification_loss(cosines, labels, heat, 2 * batch["num_labeled"]),
            balance=balance_loss(cosines, mass_K / batch["shares"], heat),
        )
        free = losses["distillation"] + config.balance * losses["balance"]
        free = free + config.contrastive * losses["instance"]
        taught = losses["supervised"] + config.contrastive * losses["class"]
        if config.anchor:
            anchors = batch["anchors"].repeat(2)
            losses["anchor"] = classification_loss(cosines, anchors, heat, 2 * batch["num_anchors"])
            free = free + config.anchor * losses["anchor"]
        return losses | {"total": (1 - config.labeled) * free + config.labeled * taught}

    def _contrast(self, projections_ND: Tensor, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Both views of the part are anchors and keys; to the class-wise loss of a labeled crop
        only labeled ones are."""
        config, labels = self._config, batch["labels"].repeat(2)
        instances, told = batch["instances"].repeat(2), labels >= 0
        own = torch.arange(len(labels), device=labels.device).roll(len(labels) // 2)
        similarities_NN = projections_ND @ projections_ND.T

        def log_p(similarities: Tensor, temperature: float) -> Tensor:
            heats = torch.full_like(similarities[:, 0], temperature)
            return contrastive_log_probabilities(similarities, heats, instances, instances, own)

        unlike_NN = told[:, None] & ~told[None, :]
        among_told_NN = similarities_NN.masked_fill(unlike_NN, -torch.inf)
        count = 2 * batch["num_labeled"]
        return {
            "instance": instance_contrastive_loss(
                log_p(similarities_NN, config.instance_temperature), own
            ),
            "class": class_contrastive_loss(
                log_p(among_told_NN, config.class_temperature), labels, labels, count
            ),
        }
