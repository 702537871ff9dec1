"""Embed: where does each crop lie before discovery?

A frozen backbone turns every crop into a vector of length 1. Nothing is learned here; the count of
classes and the k-means baseline are built on these vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size, TensorFile
from gcdis_ray.store.members import Inputs, document, optional, table, tensors
from gcdis_ray.store.schemas import EMBEDDINGS

ID = "embed"
VERSION = 2
TAKES = ("crops", optional("proposer_spec"), optional("proposer"))
GIVES = (
    table("embeddings", EMBEDDINGS),
    document("embed_spec"),
    tensors("backbone", optional=True),
)
SEEDED = False

NEEDS_WEIGHTS = ("mobilenet_v2", "resnet50")
_DIMENSIONS = {"wavelet": 330, "mobilenet_v2": 1280, "resnet50": 2048, "proposer": 256}  # about


class Config(StageConfig):
    """The frozen backbone."""

    backbone: Literal["wavelet", "mobilenet_v2", "resnet50", "proposer"] = Field(
        "wavelet",
        description="wavelet: fixed oriented filters, no weights; mobilenet_v2, resnet50: your "
        "weights; proposer: the features of the trained proposer",
    )
    weights: str | None = Field(
        None, description="safetensors file in torchvision's layout (or a folded int8 npz)"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of that file; it is refused if it differs"
    )
    input_px: int = Field(
        32, ge=16, le=1024, description="side that crops are resized to; 32 for wavelet, 224 for "
        "networks trained on ImageNet",
    )  # fmt: skip
    use_mask: bool = Field(
        True, description="look at the object: its outline (wavelet), or pool only over it"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"weights"})  # the file's content is in the key, not where it lies

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.backbone in NEEDS_WEIGHTS and self.weights is None:
            raise ConfigError(
                f"backbone {self.backbone} needs weights",
                where="stages.embed.weights",
                fix="give a safetensors file, or set stages.embed.backbone: wavelet",
            )
        return self


def source(config: Config, show: object = None) -> str:
    """SHA-256 of the weights file; empty without one."""
    from gcdis_ray.backbones.weights_file import file_sha256

    path = _weights_path(config)
    return file_sha256(path) if path else ""


def _weights_path(config: Config) -> Path | None:
    return Path(config.weights) if config.weights and config.backbone in NEEDS_WEIGHTS else None


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """One vector a crop, and the weights of the backbone if it has any."""
    path, weights = _weights_path(config), 0
    if path and path.is_file():
        weights = path.stat().st_size
    elif config.backbone == "proposer" and "proposer" in inputs:
        weights = inputs["proposer"].weight_bytes
    rows = inputs["crops"].rows
    num_bytes = 4 * rows * _DIMENSIONS[config.backbone] + weights
    return Size(rows, num_bytes, inputs["crops"].bytes + weights, weights)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``embeddings``, JSON ``embed_spec`` and, if weights are used, the tensors
    ``backbone``. Whoever embeds a crop reads them from there: workers, so that only the driver
    needs the file, and methods that meet crops which are new."""
    spec: dict[str, Any] = {
        "backbone": config.backbone,
        "input_px": config.input_px,
        "use_mask": config.use_mask,
    }
    if path := _weights_path(config):
        from gcdis_ray.models.backbones import read_weights

        work.write_tensors("backbone", read_weights(path, config.sha256))
        spec["weights_sha256"] = source(config)
    elif config.backbone == "proposer":
        if not inputs.has("proposer"):
            raise ConfigError(
                "there is no trained proposer: masks come from outside",
                where="stages.embed.backbone",
                fix="use backbone: wavelet",
            )
        work.write_tensors("backbone", inputs.tensor_file("proposer").load())
        spec["detector"] = inputs.json("proposer_spec")
    weights = work.tensor_file("backbone") if work.has("backbone") else None
    work.map_shards(EmbedShards(spec, weights), [inputs.table("crops")], gives=("embeddings",))
    work.write_json("embed_spec", spec)


@dataclass(frozen=True)
class EmbedShards:
    """Shard task over ``[crops]`` that gives ``embeddings``, row by row."""

    spec: Mapping[str, Any]
    weights: TensorFile | None
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        from gcdis_ray.methods.embedding import open_embedding

        embed = open_embedding(self.spec, self.weights.load() if self.weights else None, device)

        def run(index: int, crops: pa.Table) -> Mapping[str, pa.Table]:
            return {"embeddings": _table(crops, embed(crops))}

        return run


def _table(crops: pa.Table, vectors_ND: np.ndarray) -> pa.Table:
    columns = [crops["crop_index"], crops["class_index"], as_lists(vectors_ND)]
    return pa.table(columns, schema=EMBEDDINGS)
