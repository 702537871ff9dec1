"""Opens what :func:`gcdis_ray.methods.heads_on_body.fit` has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from gcdis_ray.methods.crop_inputs import CropInputs
from gcdis_ray.methods.heads_config import HeadsConfig
from gcdis_ray.methods.trained_network import TrainedNetwork, placed_on
from gcdis_ray.methods.trunk import TrunkSpec, build_encoder


def open_network(
    build: Callable[[Any, HeadsConfig], nn.Module],
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> TrainedNetwork:
    """Args: build: encoder and heads -> the network."""
    trunk = TrunkSpec.model_validate(spec["trunk"])
    heads = HeadsConfig.model_validate(spec["heads"])
    precision = spec.get("precision", "fp32")

    def load(tensors: Mapping[str, Tensor]) -> Any:
        network = build(build_encoder(trunk), heads)
        network.load_state_dict(dict(tensors))
        return placed_on(network, device, precision)

    return TrainedNetwork(
        load(weights),
        load,
        CropInputs.opened(trunk, others, device),
        int(spec["num_outputs"]),
        heads.projection_dim,
        float(spec["temperature"]),
        precision,
    )
