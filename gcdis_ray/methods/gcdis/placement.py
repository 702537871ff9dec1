"""Where prototypes begin: at the clusters placed before training, or at clusters of the momentum
encoder's projections.

Shape letters: M crops looked at, F features, D projection, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.linkage import semi_supervised_linkage
from gcdis_ray.clustering.prototypes import (
    fit_prototypes,
    nearest_by_cosine,
    semi_supervised_kmeans,
)
from gcdis_ray.methods.crop_views import Views
from gcdis_ray.methods.discovery_model import DiscoveryModel
from gcdis_ray.methods.gcdis.config import DiscoveryConfig
from gcdis_ray.methods.placed import PlacedClusters
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts


class Placement:
    """Starts all prototypes anew when the clustering loss starts, unless config says random.

    Placed clusters are known before the first step, where the loss may start. Clusters of
    projections wait for one.

    Args:
        labels_N: int64 on the CPU, output each crop is trained on, -1 for an unlabeled one.
    """

    def __init__(
        self,
        config: DiscoveryConfig,
        problem: Problem,
        labels_N: Tensor,
        placed: PlacedClusters,
        steps: int,
    ) -> None:
        self._config, self._heat = config.prototypes, config.losses.softmax_temperature
        self._num_known, self._num_classes = problem.num_told, problem.num_outputs
        self._seed, self._labels_N, self._placed = problem.seed, labels_N, placed
        least = 0 if config.takes_placed else 1
        self._due = max(least, config.losses.clustering_start(steps))

    def is_due(self, finished: int) -> bool:
        return finished == self._due and self._config.start != "random"

    def start(
        self, student: DiscoveryModel, teacher: DiscoveryModel, views: Views, parts: StepParts
    ) -> None:
        """Place the prototypes of both, the same ones on every rank, where the momentum encoder's
        features tell the clusters apart. That of an empty cluster starts where it has it."""
        if self._config.start == "placed":
            self._placed.start(
                teacher,
                views,
                parts,
                self._heat,
                self._seed,
                most=self._config.samples,
                balanced=self._config.balanced,
            )
            student.norm.load_state_dict(teacher.norm.state_dict())
            student.classifier.place(teacher.classifier.prototypes())
            return
        prototypes_KF = self._of_projections(teacher, views, parts)
        for model in (student, teacher):
            model.classifier.place(prototypes_KF)

    def _of_projections(self, teacher: DiscoveryModel, views: Views, parts: StepParts) -> Tensor:
        """(K, F), unit rows."""

        def look(rows: Tensor) -> tuple[Tensor, Tensor]:
            features, projections = [], []
            for view in views.plain(rows):
                found = teacher(view)
                features.append(F.normalize(found.features_NF.float(), dim=1))
                projections.append(found.projections_ND.float())
            return torch.cat(features), torch.cat(projections)

        rng = np.random.default_rng([self._seed, 1])
        order = rng.permutation(len(self._labels_N))
        rows_M = torch.from_numpy(order[: self._config.samples])
        features_MF, projections_MD = parts.look(rows_M, look)
        labels_M = self._labels_N[rows_M].to(features_MF.device)
        clusters_M = self._clusters(projections_MD, labels_M)
        sums_KF = features_MF.new_zeros(self._num_classes, features_MF.shape[1])
        sums_KF.index_add_(0, clusters_M, features_MF)
        empty_K1 = sums_KF.norm(dim=1, keepdim=True) == 0
        start_KF = torch.where(
            empty_K1, teacher.classifier.prototypes(), F.normalize(sums_KF, dim=1)
        )
        fitted_KF = fit_prototypes(
            features_MF, clusters_M, start_KF, self._heat, balanced=self._config.balanced
        )
        return parts.of_first(fitted_KF)

    def _clusters(self, projections_MD: Tensor, labels_M: Tensor) -> Tensor:
        config = self._config
        if config.start == "linkage":
            found = semi_supervised_linkage(
                projections_MD.cpu().double().numpy(),
                labels_M.cpu().numpy(),
                self._num_known,
                self._num_classes,
                min_share=config.min_share,
                labeled_stretch=config.labeled_stretch,
            )
            return torch.from_numpy(found).to(labels_M)
        centers_KD = semi_supervised_kmeans(
            projections_MD,
            labels_M,
            self._num_known,
            self._num_classes,
            torch.Generator().manual_seed(self._seed),
            restarts=config.restarts,
        )
        nearest_M = nearest_by_cosine(projections_MD, centers_KD)
        return torch.where(labels_M >= 0, labels_M, nearest_M)
