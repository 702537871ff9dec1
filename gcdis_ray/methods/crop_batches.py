"""The crops of every step, each in two random views."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcdis_ray.config import TrainingConfig
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.sampling import CropSampler
from gcdis_ray.errors import DataError
from gcdis_ray.methods.crop_views import Views


class CropBatches:
    """Batches as a pure function of (seed, step, part).

    Args:
        labels_N: int64 on the CPU, output each crop is trained on, -1 for an unlabeled one.
        labeled_share: of labeled crops in a part; None: crops as they come.
        augment: of both views.

    Raises:
        DataError: there is no crop.
    """

    def __init__(
        self,
        views: Views,
        labels_N: Tensor,
        training: TrainingConfig,
        labeled_share: float | None,
        augment: CropAugmentConfig,
        seed: int,
    ) -> None:
        if len(labels_N) == 0:
            raise DataError("no crop to learn from", where="crops")
        self.part_size = training.batch_size // training.micro_batches
        self.epoch_steps = max(1, math.ceil(len(labels_N) / training.batch_size))
        self.sampler = CropSampler(
            labels_N.numpy(), labeled_share, self.part_size, training.micro_batches, seed
        )
        self._views, self._labels_N, self._augment, self._seed = views, labels_N, augment, seed

    def batch(self, step: int, part: int) -> dict[str, Any]:
        """``images`` and ``second``, what a network sees of n crops in two views, ``masks`` of the
        first, ``labels`` and ``instances`` (n,) int64, and ``step`` and ``part`` themselves."""
        rows = self.sampler.crops(step, part)
        seed = np.random.SeedSequence([self._seed, step, part]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) & (2**63 - 1))
        (first, masks), (second, _) = self._views.random(rows, 2, self._augment, generator)
        return dict(
            step=step,
            part=part,
            images=first,
            masks=masks,
            second=second,
            labels=self._labels_N[rows],
            instances=rows,
        )
