"""What a training takes from clusters that were placed before it: prototypes, sizes, an anchor.

Shape letters: N crops, M crops looked at, n crops of a part, K outputs, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.backbones.modes import in_eval
from gcdis_ray.clustering.prototypes import fit_prototypes
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.crop_views import Views
from gcdis_ray.methods.discovery_model import DiscoveryModel
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts

_MOST = 20_000  # crops that prototypes are fitted to


class Taking(Protocol):
    """What a config says of placed clusters: whether training takes them, and whose sizes clusters
    are held to, ``placed`` or ``uniform``."""

    @property
    def takes_placed(self) -> bool: ...
    @property
    def sizes(self) -> str: ...


class PlacedClusters:
    """The cluster of every crop before training: labeled crops in the output of their class, others
    where they were placed, or nowhere if the config wants no placing.

    Args:
        labels_N: int64 on the CPU, output each crop is trained on, -1 for an unlabeled one.
    """

    def __init__(
        self, problem: Problem, labels_N: Tensor, config: Taking, device: torch.device
    ) -> None:
        self._num_outputs, self._device = problem.num_outputs, device
        self._labels_N, self._config = labels_N, config
        placed_N = torch.full_like(labels_N, -1)
        if config.takes_placed and problem.placed_N is not None:
            placed_N = torch.from_numpy(problem.placed_N)
        self._clusters_N = torch.where(labels_N >= 0, labels_N, placed_N)
        self._of_unlabeled_N = torch.where(labels_N >= 0, -1, placed_N).to(device)

    def of_unlabeled(self, part: Mapping[str, Any]) -> Tensor:
        """(n,) cluster of a part's crops where they were placed, -1 of labeled ones or nowhere."""
        return self._of_unlabeled_N[part["instances"]]

    def shares_of_batch(self, labeled_share: float | None) -> Tensor:
        """(K,) how large clusters are in a batch with this share of labeled crops; all alike where
        the config wants that."""
        told_N = self._labels_N >= 0
        num_told, num_free = int(told_N.sum()), int((~told_N).sum())
        if labeled_share is None or not num_told or not num_free:
            weight_N = torch.ones(len(told_N))
        else:
            weight_N = torch.where(told_N, labeled_share / num_told, (1 - labeled_share) / num_free)
        return self._shares(weight_N)

    def shares_of_unlabeled(self) -> Tensor:
        """(K,) how large clusters are among unlabeled crops."""
        return self._shares((self._labels_N < 0).float())

    def _shares(self, weight_N: Tensor) -> Tensor:
        if self._config.sizes == "uniform":
            return torch.full((self._num_outputs,), 1 / self._num_outputs, device=self._device)
        return cluster_shares(self._clusters_N, weight_N, self._num_outputs).to(self._device)

    def start(
        self,
        model: DiscoveryModel,
        views: Views,
        parts: StepParts,
        temperature: float,
        seed: int,
        *,
        most: int = _MOST,
        balanced: bool = False,
    ) -> None:
        """Before the first step: prototypes begin where they tell the clusters apart, and the batch
        norm of features where the crops' own statistics are. The prototype of an empty cluster
        begins where it is, and leaves the crops to the others.

        Args:
            temperature: of the softmax over cosines.
            seed: of the choice of crops to look at, where there are many.
            most: of these; one of every cluster is among them, if so many may be.
            balanced: clusters count alike, not crops.
        """
        order = np.random.default_rng([seed, 1]).permutation(len(self._clusters_N))
        first = np.unique(self._clusters_N.numpy()[order], return_index=True)[1]
        order = np.concatenate([order[first], np.delete(order, first)])
        rows_M = torch.from_numpy(np.sort(order[:most]))

        def look(rows: Tensor) -> list[Tensor]:
            return [torch.cat([model.encoder(view)[0].float() for view in views.plain(rows)])]

        with torch.no_grad(), in_eval(model):
            (raw_MF,) = parts.look(rows_M, look)
            if isinstance(model.norm, torch.nn.BatchNorm1d):
                _start_at(model.norm, raw_MF, parts)
            features_MF = F.normalize(model.norm(raw_MF), dim=1)
            clusters_M = self._clusters_N[rows_M].to(features_MF.device)
            start_KF = model.classifier.prototypes().clone()
            sums_KF = torch.zeros_like(start_KF).index_add_(0, clusters_M, features_MF)
            some_K1 = sums_KF.norm(dim=1, keepdim=True) > 0
            start_KF = torch.where(some_K1, F.normalize(sums_KF, dim=1), start_KF)
            fitted_KF = fit_prototypes(
                features_MF, clusters_M, start_KF, temperature, balanced=balanced
            )
            model.classifier.place(parts.of_first(fitted_KF))


def check_placed(problem: Problem, config: Taking, where: str) -> None:
    """Args: where: key that says where outputs begin.

    Raises:
    ConfigError: the config takes placed clusters, and there are none.
    """
    if config.takes_placed and problem.placed_N is None:
        raise ConfigError(
            "no clusters were placed that training could start from",
            where=where,
            fix="take a recipe with embeddings, or set it to random",
        )


def cluster_shares(clusters_N: Tensor, weight_N: Tensor, num_outputs: int) -> Tensor:
    """Share of each cluster, (K,) float32, sum 1. An empty one counts as one mean crop would.

    Args:
        weight_N: how often a crop is seen; only ratios matter.
    """
    weight_N = weight_N.double()
    mass_K = torch.zeros(num_outputs, dtype=torch.float64).index_add_(0, clusters_N, weight_N)
    mass_K = torch.where(mass_K > 0, mass_K, weight_N.sum() / weight_N.count_nonzero())
    return (mass_K / mass_K.sum()).float()


def _start_at(norm: torch.nn.BatchNorm1d, features_MF: Tensor, parts: StepParts) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(parts.of_first(features_MF.mean(dim=0)))
    norm.running_var.copy_(parts.of_first(features_MF.var(dim=0, correction=0)))
