"""The discovery model f_d of GCDIS (Hoang, Lee, Kang; AAAI 2025), as a method.

It learns from labeled and unlabeled crops at once. Implements
:class:`gcdis_ray.methods.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gcdis_ray.backbones.weights_file import check_format
from gcdis_ray.config import StageConfig, TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.method import Fitted, Inferred
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.tables import HEADNESS, HOLDOUT_CURVE
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import table, tensors
from gcdis_ray.store.schemas import HISTORY

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.gcdis.network import DiscoveryModel
    from gcdis_ray.runtime.base import Work

VERSION = 3
USES_EMBEDDINGS = False
SNAPSHOTS = True
MEASURES = True
GIVES = (
    tensors("encoder", optional=True),
    tensors("snapshot_*", optional=True),
    tensors("instance_state", optional=True),
    table("headness", HEADNESS, optional=True),
    table("history", HISTORY, optional=True),
    table("holdout_curve", HOLDOUT_CURVE, optional=True),
)


class Config(StageConfig):
    """Defaults fit some thousand crops and a CPU. The paper's scale: ``model.encoder`` as its
    docstring says at 224 px, ``attention.pools: [18, 12, 8]``, projection 2048 -> 256 without
    norms, queue 65536, momentum 0.999, ``prototypes.start: random``, SGD at lr 0.1 and batch 256.
    """

    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 800, "batch_size": 96, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01}
    )
    model: ModelConfig = ModelConfig.model_validate({})
    discovery: DiscoveryConfig = DiscoveryConfig.model_validate({})
    snapshots: int = Field(5, ge=2, le=100, description="weights kept to judge reliability")
    snapshots_from: float = Field(
        0.4, ge=0, lt=1, description="share of training before the first of them is counted"
    )
    cache_mb: int = Field(
        2000,
        ge=0,
        le=10_000_000,
        description="decoded crops in memory; beyond it, they stay encoded in a scratch file",
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"cache_mb"})

    def key_fields(self) -> dict[str, Any]:
        return super().key_fields() | {"model": self.model.key_fields()}

    @model_validator(mode="after")
    def _can_run(self) -> Config:
        if self.training.batch_size < 2 * self.training.micro_batches:
            raise ValueError("batch norm needs two crops per part: raise training.batch_size")
        if self.training.epochs is None:
            self.snapshot_steps(self.training.steps)
        self.model.encoder.check_start()
        late = 1 - self.snapshots_from
        if self.snapshots_from + late / self.snapshots <= self.discovery.losses.clustering_from:
            raise ValueError(
                "a snapshot before clustering starts knows no novel class: raise snapshots_from to "
                "discovery.losses.clustering_from or above"
            )
        return self

    def snapshot_steps(self, steps: int) -> list[int]:
        """Equally spaced over the last part of ``steps``; the last one is the final step.

        Raises:
            ConfigError: fewer than two of them differ.
        """
        late = 1 - self.snapshots_from
        shares = [
            self.snapshots_from + late * (k + 1) / self.snapshots for k in range(self.snapshots)
        ]
        chosen = sorted({max(1, round(share * steps)) for share in shares})
        if len(chosen) < 2:
            raise ConfigError(
                f"{steps} step(s) leave no room for two snapshots",
                where="stages.discover.gcdis.training",
                fix="train for more steps or epochs",
            )
        return chosen


def check(config: Config) -> None:
    encoder = config.model.encoder
    if encoder.weights is not None:
        check_format(Path(encoder.weights), encoder.weights_sha256)


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """The model as often as there are snapshots. Crops are read, and the model."""
    from gcdis_ray.methods.gcdis.model import build_discovery_model
    from gcdis_ray.models.stored import stored_bytes

    weights = stored_bytes(lambda: build_discovery_model(config.model.starting_at(None), 100))
    stored = (config.snapshots + 1) * weights
    return Size(700, stored, inputs["crops"].bytes + stored, stored)


def fit(problem: Problem, config: Config, work: Work) -> Fitted:
    """Leave tensors ``encoder``, ``snapshot_<step>`` and ``instance_state``, tables ``headness``,
    ``history`` and, with a hold-out, ``holdout_curve``."""
    from gcdis_ray.methods.gcdis.task import DiscoveryTask

    training = config.training.over(problem.crops.num_rows)
    steps = config.snapshot_steps(training.steps)
    work.fit(
        DiscoveryTask(
            replace(problem, space=None),  # of no use to training workers
            training,
            config.model.located(),
            config.discovery,
            snapshot_steps=steps,
            cache_mb=config.cache_mb,
        )
    )
    state = work.tensor_file("instance_state").load()
    columns = {name: state[name].numpy() for name in ("temperature", "headness")}
    rows = np.arange(problem.crops.num_rows)
    work.write_table("headness", pa.table({"crop_index": rows, **columns}))
    spec = dict(
        model=config.model.key_fields(),
        num_classes=problem.num_outputs,
        cache_px=config.discovery.cache_px,
        softmax_temperature=config.discovery.losses.softmax_temperature,
    )
    return Fitted(spec, "encoder", snapshots=tuple(steps))


def load(
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> DiscoveryNetwork:
    from gcdis_ray.methods.gcdis.model import load_discovery_model

    return DiscoveryNetwork(load_discovery_model(spec, weights).to(device), spec)


@dataclass(frozen=True)
class DiscoveryNetwork:
    """A trained f_d. Implements :class:`gcdis_ray.methods.method.Trained`."""

    model: DiscoveryModel
    spec: Mapping[str, Any]

    @property
    def num_outputs(self) -> int:
        return int(self.spec["num_classes"])

    @property
    def width(self) -> int:
        return int(self.spec["model"]["heads"]["projection_dim"])

    def infer(self, crops: pa.Table) -> Inferred:
        from gcdis_ray.methods.gcdis.inference import infer_crops

        return infer_crops(self.model, self.spec, crops)

    def prototypes_KF(self) -> NDArray[np.float32]:
        return self.model.classifier.prototypes().cpu().numpy()
