"""What a method that learns on crops is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.store.artifacts import Table


@dataclass(frozen=True)
class CropProblem:
    """Crops, some of them labeled, to be sorted into known and novel classes.

    Args:
        crops: the table ``crops`` (crop_index is its row number).
        num_known: known classes, hidden ones included.
        num_outputs: classes to learn: known ones that training is told of, then free ones.
        seed: of all that is random.
        snapshot_steps: finished steps after which weights are kept.
        hold_out: known classes whose labels are withheld; the outputs of the others come first.
        measure_every: finished steps between measurements of ``hold_out``, 0 for none. Changes no
            weight.
        cache_mb: decoded crops kept in memory up to this size; changes no result.
    """

    crops: Table
    num_known: int
    num_outputs: int
    seed: int
    snapshot_steps: Sequence[int] = ()
    hold_out: HoldOut | None = None
    measure_every: int = 0
    cache_mb: int = 2000

    @property
    def num_told(self) -> int:
        """Known classes that training is told of."""
        return self.hold_out.num_visible if self.hold_out else self.num_known

    def told(self, labels_N: Tensor) -> Tensor:
        """The labels to train on: an output below ``num_told``, or -1.

        Args:
            labels_N: int64 on the CPU, known class of each crop, -1 for an unlabeled one.
        """
        if self.hold_out is None:
            return labels_N
        return torch.from_numpy(self.hold_out.told(labels_N.numpy()))
