"""UNO's network with its loss: the module that training optimises.

Shape letters: V = 2 views, n crops of a part, H heads, O over-clustering heads, K outputs, J
outputs of an over-clustering head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.losses.swapped import swapped_prediction_loss
from gcdis_ray.methods.uno.network import UnoNetwork


class UnoObjective(nn.Module):
    """The unified objective: one cross-entropy for labels and pseudo-labels, over all outputs.

    ``forward(batch)`` gives the named losses of one part of a step: ``clustering`` is the mean over
    heads of the swapped prediction, ``overclustering`` that of over-clustering heads, ``total``
    their mean.
    """

    def __init__(self, model: UnoNetwork, temperature: float) -> None:
        super().__init__()
        self.model, self._temperature = model, temperature

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Args:
        batch: ``images`` and ``second`` (n, ...), two views; what each view is said to be,
            ``targets`` (n, V, H, K) and ``over_targets`` (n, V, O, J), rows of zeros for crops
            left out.
        """
        found = self.model.headed(torch.cat([batch["images"], batch["second"]]))
        with torch.autocast(batch["images"].device.type, enabled=False):  # temperatures divide
            loss_H = self._by_head(batch["targets"], found.cosines_NHK)
            if self.training:
                self.model.note(loss_H)
            losses = {"clustering": loss_H.mean()}
            if found.over_NOJ.shape[1]:
                losses["overclustering"] = self._by_head(
                    batch["over_targets"], found.over_NOJ
                ).mean()
            return losses | {"total": torch.stack(list(losses.values())).mean()}

    def _by_head(self, targets_nVHK: Tensor, cosines_NHK: Tensor) -> Tensor:
        """(H,)"""
        views = targets_nVHK.shape[1]
        targets_HVnK = targets_nVHK.permute(2, 1, 0, 3)
        cosines_HVnK = cosines_NHK.float().unflatten(0, (views, -1)).permute(2, 0, 1, 3)
        pairs = zip(targets_HVnK, cosines_HVnK, strict=True)
        return torch.stack([swapped_prediction_loss(*pair, self._temperature) for pair in pairs])
