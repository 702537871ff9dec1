"""Embed: where does each crop lie before discovery?

A frozen backbone turns every crop into a vector of length 1. Nothing is learned here; the count of
classes and the k-means baseline are built on these vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from gcdis_ray.backbones.config import (
    DOWNLOAD,
    MODEL,
    SHA256,
    WEIGHTS,
    BackboneConfig,
    Features,
)
from gcdis_ray.backbones.packages import weights_package
from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size, TensorFile, Workload
from gcdis_ray.store.members import Inputs, document, optional, table, tensors
from gcdis_ray.store.schemas import EMBEDDINGS

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "embed"
VERSION = 3
TAKES = ("crops", optional("proposer_spec"), optional("proposer"))
GIVES = (
    table("embeddings", EMBEDDINGS),
    document("embed_spec"),
    tensors("backbone", optional=True),
)
SEEDED = False
_AT = "stages.embed"
_OWN = ("wavelet", "proposer")  # all other backbones are timm's
_OWN_PX = 32
_OWN_DIMENSIONS = {"wavelet": 330, "proposer": 256}  # about


class Config(StageConfig):
    """The frozen backbone."""

    backbone: str = Field(
        "wavelet",
        description=f"wavelet: fixed oriented filters, no weights; proposer: the features of the "
        f"trained proposer; or {MODEL}",
    )
    weights: str | None = Field(None, description=f"of timm's networks: {WEIGHTS}")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description=SHA256)
    download: bool = Field(False, description=DOWNLOAD)
    input_px: int | None = Field(
        None, ge=16, le=1024, description="side that crops are resized to; none: 32 for wavelet "
        "and proposer, for timm's networks what they were trained at (224 where that is above 384)",
    )  # fmt: skip
    features: Features = Field(
        "auto",
        description="of timm's networks: class_token, patch_mean (the last map's mean, over the "
        "object with use_mask), both; auto: both, or the mean where there is no class token",
    )
    use_mask: bool = Field(
        True, description="look at the object: its outline (wavelet), or pool only over it"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"weights", "download"})  # what they are counts, not where they lie

    def key_fields(self) -> dict[str, Any]:
        network = self.network()
        sha256 = network.key_fields()["sha256"] if network else None
        return super().key_fields() | {"sha256": sha256}

    def network(self) -> BackboneConfig | None:
        """The network of timm; None for backbones of our own."""
        if self.backbone in _OWN:
            return None
        return BackboneConfig(
            model=self.backbone, weights=self.weights, sha256=self.sha256, download=self.download
        )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.backbone in _OWN and (self.weights, self.features) != (None, "auto"):
            key = "features" if self.weights is None else "weights"
            raise ConfigError(
                f"backbone {self.backbone} has none to choose",
                where=f"{_AT}.{key}",
                fix=f"set {_AT}.{key}: {'auto' if key == 'features' else 'null'}",
            )
        if self.backbone not in _OWN and self.weights is None:
            raise ConfigError(
                f"backbone {self.backbone} needs weights",
                where=f"{_AT}.weights",
                fix="set it to package, hub or a file, or use backbone: wavelet",
            )
        if self.weights == "package":
            weights_package(self.backbone, f"{_AT}.weights")
        return self


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    network = config.network()
    if network is None:
        return
    network.check(_AT)
    from gcdis_ray.backbones.frozen import feature_kind
    from gcdis_ray.backbones.network import check_side

    try:
        backbone = check_side(network.model, _side(config))
    except ConfigError as error:
        raise error.at(f"{_AT}.input_px") from error
    try:
        feature_kind(backbone, config.features)
    except ConfigError as error:
        raise error.at(f"{_AT}.features") from error


def _side(config: Config) -> int:
    """Side of the crops that the backbone sees, px."""
    if config.input_px is not None:
        return config.input_px
    if config.backbone in _OWN:
        return _OWN_PX
    from gcdis_ray.backbones.network import default_side

    return default_side(config.backbone)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """One vector a crop, and the weights of the backbone if it has any."""
    weights, dimensions = 0, _OWN_DIMENSIONS.get(config.backbone, 0)
    if config.backbone == "proposer" and "proposer" in inputs:
        weights = inputs["proposer"].weight_bytes
    elif not dimensions:
        from gcdis_ray.backbones.frozen import feature_kind
        from gcdis_ray.backbones.network import check_side
        from gcdis_ray.models.stored import stored_bytes

        network = check_side(config.backbone, _side(config))
        weights, dimensions = stored_bytes(lambda: network), network.num_features
        if feature_kind(network, config.features) == "both":
            dimensions *= 2
    rows = inputs["crops"].rows
    num_bytes = 4 * rows * dimensions + weights
    return Size(rows, num_bytes, inputs["crops"].bytes + weights, weights)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All crops."""
    return Workload(rows=made.rows)


def sections(view: RunView) -> Sequence[Section]:
    """What the weights of the backbone may know already."""
    from gcdis_ray.report.embedding_section import embedding_section

    return [embedding_section(view)]


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``embeddings``, JSON ``embed_spec`` and, if weights are used, the tensors
    ``backbone``. Whoever embeds a crop reads them from there: workers, so that only the driver
    needs the file, and methods that meet crops which are new."""
    spec: dict[str, Any] = {
        "backbone": config.backbone,
        "input_px": _side(config),
        "use_mask": config.use_mask,
        "trained_with_labels": False,
    }
    if network := config.network():
        spec |= _take_weights(network, config, work)
    elif config.backbone == "proposer":
        if not inputs.has("proposer"):
            raise ConfigError(
                "there is no trained proposer: masks come from outside",
                where=f"{_AT}.backbone",
                fix="use backbone: wavelet, or a network of timm",
            )
        work.write_tensors("backbone", inputs.tensor_file("proposer").load())
        spec["detector"] = inputs.json("proposer_spec")
        detector = DetectorConfig(**spec["detector"]["detector"])
        spec["trained_with_labels"] = detector.trained_with_labels()
    weights = work.tensor_file("backbone") if work.has("backbone") else None
    work.map_shards(EmbedShards(spec, weights), [inputs.table("crops")], gives=("embeddings",))
    work.write_json("embed_spec", spec)


def _take_weights(network: BackboneConfig, config: Config, work: Work) -> dict[str, Any]:
    """Store the network's weights; what the spec says of them."""
    from gcdis_ray.backbones.frozen import feature_kind
    from gcdis_ray.backbones.network import build_backbone, read_weights

    tensors = read_weights(network)
    backbone = build_backbone(network.model, tensors, _side(config))
    work.write_tensors("backbone", tensors)
    return {
        "features": feature_kind(backbone, config.features),
        "trained_with_labels": network.trained_with_labels(),
        "weights_sha256": network.known_sha256,
    }


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
