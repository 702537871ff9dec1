"""What a method learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.methods.placing_config import PlacingConfig
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.members import Members

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.hold_out import HoldOut
    from gcdis_ray.methods.trunk import Trunk


@dataclass(frozen=True)
class Problem:
    """Crops, some of them labeled, to be sorted into known and novel classes.

    Args:
        crops: the table ``crops`` (crop_index is its row number).
        num_known: known classes, hidden ones included.
        num_outputs: classes to learn: known ones that training is told of, then free ones.
        seed: of all that is random.
        hold_out: known classes whose labels are withheld; the outputs of the others come first.
        measure_every: finished steps between measurements of ``hold_out``, 0 for none. Changes no
            weight.
        placed_N: int64, the cluster in [0, num_outputs) of every crop before training, known
            classes that training is told of first; None if nothing places them.
        placing: how crops are placed.
        trunk: what trained methods see crops through, if it is at hand for several of them.
        space: the artifact with table ``embeddings`` of the same crops and with what embeds others;
            None if the recipe embeds none.
    """

    crops: Table
    num_known: int
    num_outputs: int
    seed: int
    hold_out: HoldOut | None = None
    measure_every: int = 0
    placed_N: NDArray[np.int64] | None = None
    placing: PlacingConfig = field(default_factory=lambda: PlacingConfig.model_validate({}))
    trunk: Trunk | None = None
    space: Members | None = None

    @property
    def num_told(self) -> int:
        """Known classes that training is told of."""
        return self.hold_out.num_visible if self.hold_out else self.num_known

    def told(self, labels_N: Tensor) -> Tensor:
        """The labels to train on: an output below ``num_told``, or -1.

        Args:
            labels_N: int64 on the CPU, known class of each crop, -1 for an unlabeled one.
        """
        import torch

        return torch.from_numpy(self.told_array(labels_N.numpy()))

    def told_array(self, labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same of an array."""
        return labels_N if self.hold_out is None else self.hold_out.told(labels_N)
