"""Where prototypes begin: at clusters of the momentum encoder's projections.

Shape letters: M crops looked at, F features, D projection, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.clustering.linkage import semi_supervised_linkage
from gcdis_ray.clustering.prototypes import fit_prototypes, semi_supervised_kmeans
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.gcdis.config import DiscoveryConfig
from gcdis_ray.methods.gcdis.network import DiscoveryModel
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts


class Placement:
    """Starts all prototypes anew when the clustering loss starts, unless config says random.

    Args:
        labels_N: int64 on the CPU, output each crop is trained on, -1 for an unlabeled one.
    """

    def __init__(
        self, config: DiscoveryConfig, problem: Problem, labels_N: Tensor, steps: int
    ) -> None:
        self._config, self._heat = config.prototypes, config.losses.softmax_temperature
        self._num_known, self._num_classes = problem.num_told, problem.num_outputs
        self._seed, self._labels_N = problem.seed, labels_N
        self._due = max(1, config.losses.clustering_start(steps))

    def is_due(self, finished: int) -> bool:
        return finished == self._due and self._config.start != "random"

    def prototypes(self, teacher: DiscoveryModel, views: CropViews, parts: StepParts) -> Tensor:
        """(K, F), unit rows, the same on every rank: they tell apart the clusters found; that of an
        empty cluster starts where the momentum encoder has it."""

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
        return parts.of_first(fit_prototypes(features_MF, clusters_M, start_KF, self._heat))

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
        nearest_M = (projections_MD @ centers_KD.T).argmax(dim=1)
        return torch.where(labels_M >= 0, labels_M, nearest_M)
