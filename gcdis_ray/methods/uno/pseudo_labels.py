"""What crops of a step are said to be: labeled ones by their label, others by optimal transport.

The transport is over all unlabeled crops of a step and some of earlier steps, whatever the number
of parts and workers, by view and head.

Shape letters: V = 2 views, n crops of a part, M crops of the step and remembered ones, H heads, K
outputs of each, L known ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.config import TrainingConfig
from gcdis_ray.losses.sinkhorn import sinkhorn
from gcdis_ray.methods.contrast_keys import ContrastKeys
from gcdis_ray.methods.uno.config import PseudoLabelConfig
from gcdis_ray.training.task import Exchange

VIEWS = 2


class PseudoLabels:
    """Of all heads of one kind.

    Args:
        num_heads: H, at least 1.
        num_known: L.
        shares_K: of each output among unlabeled crops, sum 1.
        remembered: crops of earlier steps that share the sizes.
    """

    def __init__(
        self,
        config: PseudoLabelConfig,
        training: TrainingConfig,
        num_heads: int,
        num_known: int,
        shares_K: Tensor,
        remembered: int,
    ) -> None:
        self._config, self._num_known, self._shares_K = config, num_known, shares_K
        self._shape = (VIEWS, num_heads, len(shares_K))
        self._memory = ContrastKeys(
            max(remembered, 1),
            VIEWS * num_heads * len(shares_K),
            training,
            shares_K.device,
            queued_contrast=remembered > 0,
        )

    def take(
        self, cosines: Sequence[Tensor], parts: Sequence[Mapping[str, Any]], exchange: Exchange
    ) -> list[Tensor]:
        """What each local part's crops are said to be by each view and head, (n, V, H, K), rows of
        sum 1; zeros for labeled crops.

        Args:
            cosines: of each local part, (V n, H, K), one view after the other.
            parts: with ``part``, ``labels`` and ``instances``.
        """
        by_crop = [part.unflatten(0, (VIEWS, -1)).transpose(0, 1).flatten(1) for part in cosines]
        shown = self._memory.take([rows.float() for rows in by_crop], parts, exchange)
        near = shown["num_contrasted"]
        free_M = shown["key_labels"][:near] < 0
        cosines_MVHK = shown["keys"][:near].unflatten(1, self._shape)
        targets_MVHK = torch.zeros_like(cosines_MVHK)
        first = self._num_known if self._config.novel_only else 0
        for view in range(VIEWS):
            for head in range(self._shape[1]):
                targets_MVHK[:, view, head, first:] = sinkhorn(
                    cosines_MVHK[:, view, head, first:],
                    self._config.epsilon,
                    self._config.iterations,
                    self._shares_K[first:],
                    free_M,
                )
        return [targets_MVHK[self._memory.own(int(part["part"]))] for part in parts]

    def keep(self) -> None:
        """The step is over: its crops are remembered."""
        self._memory.enqueue()

    def state(self) -> Mapping[str, Any]:
        return self._memory.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._memory.load_state(state)


def told(clusters_n: Tensor, num_heads: int, num_outputs: int) -> Tensor:
    """(n, V, H, K): each crop is said to be in its cluster by every view and head; zeros for -1."""
    one_hot_nK = F.one_hot(clusters_n.clamp(min=0), num_outputs).float()
    one_hot_nK = one_hot_nK * (clusters_n >= 0)[:, None]
    return one_hot_nK[:, None, None].expand(-1, VIEWS, num_heads, -1)
