"""A trained network, opened where it runs, whatever method trained it.

Shape letters: N crops, K outputs, D embedding, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gcdis_ray.methods.crop_inputs import CropInputs
from gcdis_ray.methods.method import InferEach, Inferred
from gcdis_ray.runtime.devices import Precision, precision_on

Module = TypeVar("Module", bound=nn.Module)


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
        precision: in which the network runs on a GPU. Its frozen part runs in fp32, as it does in
            training, and so do cosines.
    """

    network: Network
    load: Callable[[Mapping[str, Tensor]], Network]
    inputs: CropInputs
    num_outputs: int
    width: int
    temperature: float
    precision: Precision = "fp32"

    def infer(self, crops: pa.Table) -> Inferred:
        ((probabilities_NK, projections_ND),) = self.said([self.network], crops)
        return Inferred(probabilities_NK.cpu().numpy(), projections_ND.cpu().numpy())

    def each(self, snapshots: Sequence[Mapping[str, Tensor]]) -> InferEach:
        networks = [self.load(weights) for weights in snapshots]

        def infer(crops: pa.Table) -> NDArray[np.float32]:
            return torch.stack([found for found, _ in self.said(networks, crops)]).cpu().numpy()

        return infer

    @torch.inference_mode()
    def said(self, networks: Sequence[Network], crops: pa.Table) -> list[tuple[Tensor, Tensor]]:
        """What each network says of all crops: probabilities (N, K) and projections (N, D), float32
        on the device. Some crops at a time go through all networks; nothing is read back before the
        last ones are on their way."""
        device = self.inputs.device
        bf16 = precision_on(device.type, self.precision) == "bf16"
        probabilities = [[torch.zeros(0, self.num_outputs, device=device)] for _ in networks]
        projections = [[torch.zeros(0, self.width, device=device)] for _ in networks]
        for seen in self.inputs.of(crops):
            for n, network in enumerate(networks):
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    said = network(seen)
                logits_NK = said.cosines_NK.float() / self.temperature
                probabilities[n].append(torch.softmax(logits_NK, dim=1))
                projections[n].append(said.projections_ND.float())
        return [
            (torch.cat(found), torch.cat(places))
            for found, places in zip(probabilities, projections, strict=True)
        ]

    def prototypes_KF(self) -> NDArray[np.float32]:
        return self.network.prototypes().detach().cpu().numpy()


def placed_on(network: Module, device: str, precision: Precision) -> Module:
    """``network`` on a device, ready to infer, laid out for the precision that it runs in there."""
    network = network.eval().requires_grad_(False).to(device)
    if precision_on(device, precision) == "bf16":  # convolutions in bf16 are fastest that way
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network
