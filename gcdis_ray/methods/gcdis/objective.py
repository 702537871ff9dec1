"""The module that training optimises: f_d with its losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.losses.clustering import (
    balance_loss,
    classification_loss,
    clustering_loss,
    unlabeled_weights,
)
from gcdis_ray.losses.contrastive import (
    class_contrastive_loss,
    contrastive_log_probabilities,
    instance_contrastive_loss,
)
from gcdis_ray.methods.discovery_model import Discovered, DiscoveryModel
from gcdis_ray.methods.gcdis.attention_loss import attention_loss
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.headness import headness


class DiscoveryObjective(nn.Module):
    """f_d and L_gcd. ``forward(batch)`` gives the named losses of one part of a step.

    The detached headness of the last forwards waits in ``seen_headness`` (one tensor per part, in
    order) until the task collects it.
    """

    def __init__(self, model: DiscoveryModel, model_config: ModelConfig, config: DiscoveryConfig):
        super().__init__()
        self.model, self._config = model, config
        contour = model_config.attention.contour
        self._contour = [contour[min(s, len(contour) - 1)] for s in model.encoder.attended]
        self.seen_headness: list[Tensor] = []

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Args:
        batch: ``images``, what a trunk's views show, ``masks`` (N, 1, S, S), ``labels`` (N,),
            ``instances`` (N,), and from the momentum encoder ``own`` (N,), ``keys`` (M, D),
            ``key_labels``, ``key_instances`` (M,), ``temperatures`` (N,), ``targets`` (N, K),
            ``mass`` (K,), ``num_contrasted`` (int: how many of the first keys are contrasted with),
            ``num_labeled`` () (mean over the parts of the step), ``clusters`` (0 or 1); with an
            anchor, ``anchors`` (N,), the cluster of an unlabeled crop, -1 of a labeled one.
        """
        found: Discovered = self.model(batch["images"])
        with torch.autocast(batch["images"].device.type, enabled=False):  # temperatures divide
            return self._losses(found, batch)

    def _losses(self, found: Discovered, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        weights, labels, count = self._config.losses, batch["labels"], batch["num_labeled"]
        cosines = found.cosines_NK.float()
        near = int(batch["num_contrasted"])
        log_p_NM = self._contrast(found.projections_ND.float(), batch)
        heat = weights.softmax_temperature
        only_free = weights.clustering_on == "unlabeled"
        clustered = unlabeled_weights(labels, count) if only_free else 1.0
        losses = dict(
            instance=instance_contrastive_loss(log_p_NM, batch["own"]),
            class_=class_contrastive_loss(log_p_NM, labels, batch["key_labels"][:near], count),
            clustering=clustering_loss(batch["targets"], cosines, heat, clustered),
            supervised=classification_loss(cosines, labels, heat, count),
            balance=balance_loss(cosines, batch["mass"], heat),
        )
        losses["class"] = losses.pop("class_")
        if found.saliencies:
            losses["attention"] = attention_loss(found.saliencies, batch["masks"], self._contour)
        free, taught = 1 - weights.labeled, weights.labeled
        config = self._config
        clustering = weights.clustering * losses["clustering"] + config.balance * losses["balance"]
        if config.anchor:
            num_free = len(labels) - count
            losses["anchor"] = classification_loss(cosines, batch["anchors"], heat, num_free)
            clustering = clustering + config.anchor * losses["anchor"]
        losses["total"] = (
            weights.contrastive * (free * losses["instance"] + taught * losses["class"])
            + batch["clusters"] * free * clustering
            + taught * losses["supervised"]
            + weights.attention * losses.get("attention", 0.0)
        )
        return losses

    def _contrast(self, projections_ND: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """log p over the keys contrasted with; the headness waits aside. One product serves both:
        with a queue of 65,536 keys it is most of the losses' cost."""
        near, instances = int(batch["num_contrasted"]), batch["instances"]
        similarities_NM = projections_ND @ batch["keys"].T
        foreign_NM = instances[:, None] != batch["key_instances"][None, :]
        share = self._config.temperature.neighbor_share
        self.seen_headness.append(headness(similarities_NM.detach(), foreign_NM, share))
        return contrastive_log_probabilities(
            similarities_NM[:, :near],
            batch["temperatures"],
            instances,
            batch["key_instances"][:near],
            batch["own"],
        )
