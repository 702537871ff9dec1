"""The discovery model f_d of GCDIS (Hoang, Lee, Kang; AAAI 2025), as a method.

It learns from labeled and unlabeled crops at once. Implements
:class:`gcdis_ray.methods.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from gcdis_ray.config import StageConfig, TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods import trunk
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.method import Fitted, SeenThrough
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.snapshot_config import SnapshotConfig
from gcdis_ray.methods.stored_method import told_precision
from gcdis_ray.methods.tables import HEADNESS, HOLDOUT_CURVE
from gcdis_ray.methods.trunk_check import check_trunk
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import table, tensors
from gcdis_ray.store.schemas import HISTORY

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.discovery_model import DiscoveryModel
    from gcdis_ray.methods.trained_network import TrainedNetwork
    from gcdis_ray.runtime.base import Work

VERSION = 4
USES_EMBEDDINGS = False
SNAPSHOTS = True
MEASURES = True
CHOOSES = False
GIVES = (
    tensors("encoder", optional=True),
    tensors("snapshot_*", optional=True),
    tensors("instance_state", optional=True),
    table("headness", HEADNESS, optional=True),
    table("history", HISTORY, optional=True),
    table("holdout_curve", HOLDOUT_CURVE, optional=True),
    *trunk.GIVES,
)
_AT = "stages.discover.gcdis"
_CLASSES = 100  # about, for a forecast


class Config(SnapshotConfig):
    """Defaults fit some hundred to some thousand photographs and a CPU: a body that does not learn,
    with cached views, held to where crops were placed. The paper's scale: ``model.encoder`` as its
    docstring says, ``attention.pools: [18, 12, 8]``, projection 2048 -> 256 without norms, queue
    65536, momentum 0.999, ``prototypes.start: random``, SGD at lr 0.1 and batch 256.
    """

    method: ClassVar[str] = "gcdis"
    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 800, "batch_size": 96, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01}
    )
    model: ModelConfig = ModelConfig.model_validate({})
    discovery: DiscoveryConfig = DiscoveryConfig.model_validate({})

    def key_fields(self) -> dict[str, Any]:
        return super().key_fields() | {"model": self.model.key_fields()}

    @model_validator(mode="after")
    def _can_run(self) -> Self:
        encoder, augment = self.model.encoder, self.discovery.augment
        encoder.check_start(augment)
        if self.first_snapshot() <= self.discovery.losses.clustering_from:
            raise ValueError(
                "a snapshot before clustering starts knows no novel class: raise snapshots_from to "
                "discovery.losses.clustering_from or above"
            )
        if self.model.attention.enabled and encoder.learns != "all":
            raise ValueError(
                "attention gates stages that learn, and what enters the rest of the body is fixed: "
                "set model.encoder.trainable: all and cached_views: 0, or attention.enabled: false"
            )
        return self


def starts_placed(config: Config) -> bool:
    return config.discovery.takes_placed


def sees_through(config: Config) -> SeenThrough:
    discovery = config.discovery
    return SeenThrough(config.model.encoder, discovery.augment, discovery.cache_px)


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    if config.discovery.takes_placed and "embeddings" not in givers:
        raise ConfigError(
            "prototypes start where crops were placed on embeddings, and the recipe has none",
            where=f"{_AT}.discovery.prototypes.start",
            fix="set it to linkage, kmeans or random, or choose another recipe",
        )
    encoder, attends = config.model.encoder, config.model.attends
    check_trunk(encoder, givers, f"{_AT}.model.encoder", attends=attends)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """What learns as often as there are snapshots, the body and cached views once. Crops are read,
    and all of that."""
    from gcdis_ray.methods.gcdis.model import build_discovery_model
    from gcdis_ray.methods.trunk_size import trunk_size
    from gcdis_ray.models.body_encoder import RowEncoder
    from gcdis_ray.models.stored import stored_bytes

    size, heads = trunk_size(config.model.encoder, inputs), config.model.heads
    rest = stored_bytes(
        lambda: build_discovery_model(RowEncoder(size.num_features), heads, _CLASSES)
    )
    weights = (config.snapshots + 1) * (size.learning + rest) + size.stored
    stored = weights + size.views
    return Size(700, stored, inputs["crops"].bytes + stored, weights)


def num_seen(config: Config, num_crops: int) -> int:
    return config.training.num_seen(num_crops)


def fit(problem: Problem, config: Config, work: Work) -> Fitted:
    """Leave tensors ``encoder``, ``snapshot_<step>`` and ``instance_state``, tables ``headness``,
    ``history`` and, with a hold-out, ``holdout_curve``, and the members of its trunk.

    Raises:
        ConfigError: prototypes are to start where crops were placed, and none were.
    """
    from gcdis_ray.methods.gcdis.task import DiscoveryTask
    from gcdis_ray.methods.placed import check_placed

    check_placed(problem, config.discovery, f"{_AT}.discovery.prototypes.start")
    training, discovery = config.training.over(problem.crops.num_rows), config.discovery
    encoder = config.model.encoder
    seen = trunk.prepare_trunk(problem, encoder, discovery.augment, discovery.cache_px, work)
    steps = config.snapshot_steps(training.steps)
    work.fit(
        DiscoveryTask(
            replace(problem, space=None),  # of no use to training workers
            training,
            config.model,
            discovery,
            seen,
            snapshot_steps=steps,
            cache_mb=config.cache_mb,
        )
    )
    state = work.tensor_file("instance_state").load()
    columns = {name: state[name].numpy() for name in ("temperature", "headness")}
    rows = np.arange(problem.crops.num_rows)
    work.write_table("headness", pa.table({"crop_index": rows, **columns}))
    spec = dict(
        model=config.model.stored(),
        trunk=seen.spec.model_dump(mode="json"),
        uses_embeddings=seen.spec.is_embedding,
        num_classes=problem.num_outputs,
        softmax_temperature=discovery.losses.softmax_temperature,
        **told_precision(training),
    )
    return Fitted(spec, "encoder", seen.members, tuple(steps))


def load(
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> TrainedNetwork:
    from gcdis_ray.methods.crop_inputs import CropInputs
    from gcdis_ray.methods.gcdis.model import load_discovery_model
    from gcdis_ray.methods.trained_network import TrainedNetwork, placed_on

    precision = spec.get("precision", "fp32")

    def network(tensors: Mapping[str, Tensor]) -> DiscoveryModel:
        return placed_on(load_discovery_model(spec, tensors), device, precision)

    return TrainedNetwork(
        network(weights),
        network,
        CropInputs.opened(trunk.TrunkSpec.model_validate(spec["trunk"]), others, device),
        num_outputs=int(spec["num_classes"]),
        width=int(spec["model"]["heads"]["projection_dim"]),
        temperature=float(spec["softmax_temperature"]),
        precision=precision,
    )
