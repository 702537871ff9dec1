"""A trained network, opened where it runs, whatever method trained it.

Shape letters: N crops, K outputs, D embedding, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.methods.crop_inputs import CropInputs
from gcdis_ray.methods.method import Inferred


class Said(Protocol):
    """What a network says of crops; more, in most methods."""

    @property
    def projections_ND(self) -> Tensor: ...
    @property
    def cosines_NK(self) -> Tensor: ...


class Network(Protocol):
    """On a device and in eval mode."""

    def __call__(self, seen: Tensor, /) -> Said: ...

    def prototypes(self) -> Tensor:
        """What stands for each output, unit rows."""
        ...


@dataclass(frozen=True)
class TrainedNetwork:
    """Implements :class:`gcdis_ray.methods.method.Trained`.

    Args:
        network: of the weights at hand.
        load: other weights, of a snapshot -> the network with them.
        inputs: what it sees of crops.
        width: D.
        temperature: of the softmax over cosines.
    """

    network: Network
    load: Callable[[Mapping[str, Tensor]], Network]
    inputs: CropInputs
    num_outputs: int
    width: int
    temperature: float

    def at(self, weights: Mapping[str, Tensor]) -> TrainedNetwork:
        return replace(self, network=self.load(weights))

    def infer(self, crops: pa.Table) -> Inferred:
        probabilities = [torch.zeros(0, self.num_outputs)]
        projections = [torch.zeros(0, self.width)]
        with torch.inference_mode():
            for seen in self.inputs.of(crops):
                said = self.network(seen)
                logits_NK = said.cosines_NK.float().cpu() / self.temperature
                probabilities.append(torch.softmax(logits_NK, dim=1))
                projections.append(said.projections_ND.float().cpu())
        return Inferred(torch.cat(probabilities).numpy(), torch.cat(projections).numpy())

    def prototypes_KF(self) -> NDArray[np.float32]:
        return self.network.prototypes().detach().cpu().numpy()
