"""discover: which crops belong together?

The discovery model f_d of GCDIS learns from labeled and unlabeled crops at once, then says of every
crop which known or novel class it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from gcdis_ray.config import StageConfig, TrainingConfig
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.methods.gcdis.config import (
    DiscoveryConfig,
    HoldOutConfig,
    ModelConfig,
    PruneConfig,
)
from gcdis_ray.models.weights_file import check_format
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Artifact, Size, Table, TensorFile

VERSION = 3
TAKES = ("ingest", "crop", "embed", "count")
SEEDED = True


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
    top_k: int = Field(5, ge=1, le=1000, description="probabilities kept per crop")
    hold_out: HoldOutConfig = HoldOutConfig.model_validate({})
    prune: PruneConfig = PruneConfig.model_validate({})
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

    def check_files(self) -> None:
        encoder = self.model.encoder
        if encoder.weights is not None:
            check_format(Path(encoder.weights), encoder.weights_sha256)

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
                where="stages.discover.training",
                fix="train for more steps or epochs",
            )
        return chosen


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """An assignment for every crop, and the model as often as there are snapshots."""
    from gcdis_ray.methods.gcdis.model import build_discovery_model
    from gcdis_ray.models.stored import stored_bytes

    rows = inputs["crop"].rows
    weights = stored_bytes(lambda: build_discovery_model(config.model.starting_at(None), 100))
    stored = (config.snapshots + 1) * weights
    return Size(rows, 500 * rows + stored, 2 * inputs["crop"].bytes + stored)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    from gcdis_ray.methods.gcdis.inference import num_clusters
    from gcdis_ray.methods.gcdis.task import DiscoveryTask
    from gcdis_ray.methods.hold_out import choose_hidden

    crops = inputs["crop"].table("crops")
    classes = sorted(inputs["ingest"].json("classes"), key=lambda row: row["class_index"])
    count = inputs["count"].json("class_count")
    num_known, num_classes = len(classes), int(count["num_classes"])
    if num_classes < num_known:
        raise ArtifactError(
            f"{num_classes} classes in all, but {num_known} are known", where="count: class_count"
        )
    num_outputs = config.prune.num_outputs(num_known, num_classes)
    labels = crops.read(["class_index"])["class_index"].to_numpy()
    try:
        hold_out = choose_hidden(labels, num_known, config.hold_out)
    except ConfigError as error:
        raise error.at("stages.discover.hold_out.share") from error
    training = config.training.over(crops.num_rows)
    steps = config.snapshot_steps(training.steps)
    work.fit(
        DiscoveryTask(
            training=training,
            model=config.model.located(),
            discovery=config.discovery,
            crops=crops,
            num_known=num_known,
            num_classes=num_outputs,
            snapshot_steps=steps,
            cache_mb=config.cache_mb,
            seed=work.seed,
            hold_out=hold_out,
            measure_every=config.hold_out.every,
        )
    )
    known, named = classes, {row["class_index"]: row for row in classes}
    if hold_out is not None:  # outputs of visible classes come first, all others are free
        known = [{**named[c], "class_index": v} for v, c in enumerate(hold_out.visible)]
    spec: dict[str, Any] = dict(
        model=config.model.key_fields(),
        num_known=len(known),
        num_classes=num_outputs,
        cache_px=config.discovery.cache_px,
        softmax_temperature=config.discovery.losses.softmax_temperature,
        snapshots=[f"snapshot_{step}" for step in steps],
    )
    if config.prune.enabled:
        spec = {**spec, "groups": _pruned_groups(work, crops, spec, steps, config.prune)}
    work.write_json("encoder_spec", spec)
    work.write_json("discovered_classes", class_table(known, num_clusters(spec)))
    assign = AssignCrops(
        spec, work.tensor_file("encoder"), work.tensor_file("instance_state"), config.top_k
    )
    work.map_shards(assign, [crops], gives=["assignments"])
    if hold_out is not None:
        cluster_N = work.table("assignments").read(["cluster_id"])["cluster_id"].to_numpy()
        accuracy, visible_accuracy = hold_out.accuracy(cluster_N, labels)
        score = dict(
            hidden_classes=[named[index]["name"] for index in hold_out.hidden],
            accuracy=accuracy,
            visible_accuracy=visible_accuracy,
            curve=work.table("holdout_curve").read().to_pylist(),
        )
        work.write_json("holdout", score)


def _pruned_groups(
    work: Work, crops: Table, spec: Mapping[str, Any], steps: Sequence[int], config: PruneConfig
) -> list[list[int]]:
    """Outputs of each cluster; writes table ``agreement`` and JSON ``pruning``."""
    from gcdis_ray.methods.pruning import CompareSnapshots, prune_model

    snapshots = [work.tensor_file(name) for name in spec["snapshots"]]
    compare = CompareSnapshots(spec, steps, snapshots)
    agreement = work.map_shards(compare, [crops], gives=["agreement"])["agreement"].read()
    pruned = prune_model(spec, work.tensor_file("encoder"), agreement, config)
    work.write_json("pruning", pruned.report)
    return pruned.groups


def class_table(known: list[dict[str, Any]], num_classes: int) -> list[dict[str, Any]]:
    """Known classes by name, then "novel 1", "novel 2", ... without a category."""
    rows = [
        dict(
            class_index=row["class_index"],
            name=row["name"],
            known=True,
            category_id=row["category_id"],
        )
        for row in known
    ]
    for index in range(len(known), num_classes):
        name = f"novel {index - len(known) + 1}"
        rows.append(dict(class_index=index, name=name, known=False, category_id=None))
    return rows


@dataclass(frozen=True)
class AssignCrops:
    """Shard task: crops -> assignments, by the trained student on un-augmented crops."""

    spec: Mapping[str, Any]
    weights: TensorFile
    instance_state: TensorFile
    top_k: int

    def open(self) -> Callable[..., Mapping[str, pa.Table]]:
        from gcdis_ray.methods.gcdis.inference import infer_crops, num_clusters
        from gcdis_ray.methods.gcdis.model import load_discovery_model

        model = load_discovery_model(self.spec, self.weights.load())
        state = {name: value.numpy() for name, value in self.instance_state.load().items()}
        top_k = min(self.top_k, num_clusters(self.spec))

        def assign(index: int, crops: pa.Table) -> Mapping[str, pa.Table]:
            found = infer_crops(model, self.spec, crops)
            order = np.argsort(-found.probabilities_NC, axis=1, kind="stable")[:, :top_k]
            ranked = np.take_along_axis(found.probabilities_NC, order, axis=1)
            rows = crops["crop_index"].to_numpy()
            table = {
                "crop_index": crops["crop_index"],
                "class_index": crops["class_index"],
                "cluster_id": pa.array(order[:, 0].astype(np.int32)),
                "topk_ids": as_lists(order.astype(np.int32)),
                "topk_probabilities": as_lists(ranked.astype(np.float32)),
                "temperature": pa.array(state["temperature"][rows]),
                "headness": pa.array(state["headness"][rows]),
                "embedding": as_lists(found.projections_ND),
            }
            return {"assignments": pa.table(table)}

        return assign
