"""label: which of the discovered labels can be trusted, and how much?

A pseudo-label is as stable as the discovery model's snapshots agree on it (s_i), and as reliable
as its rank among the pseudo-labels of the same class (u_i), so that rare classes keep their best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gcdis_ray.clustering.reliability import Stability, classwise_rank_share, stability
from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Artifact, Size, Table, TensorFile

VERSION = 1
TAKES = ("ingest", "crop", "discover")
SEEDED = False


class Config(StageConfig):
    score: Stability = Field(
        "inv_sum",
        description="stability: inv_sum is the paper's sum of 1 / KL(last || earlier), neg_mean_kl "
        "is not ruled by the closest snapshot, last_k_agreement counts equal labels",
    )
    probability_floor: float = Field(1e-8, gt=0, le=1e-2, description="of the distributions")
    divergence_floor: float = Field(1e-6, gt=0, le=1, description="smallest KL")


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Most crops are unlabeled. Every snapshot is read, and all crops for them."""
    rows = round(0.85 * inputs["discover"].rows)
    return Size(rows, 36 * rows, inputs["crop"].bytes + inputs["discover"].bytes)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    crops = inputs["crop"].table("crops")
    discover = inputs["discover"]
    if discover.has("holdout"):
        raise for_tuning_only()
    spec = discover.json("encoder_spec")
    snapshots = tuple(discover.tensor_file(name) for name in spec["snapshots"])
    measure = MeasureStability(spec, snapshots, config)
    tables = [crops, discover.table("assignments")]
    stabilities = work.map_shards(measure, tables, gives=["stabilities"])["stabilities"]
    work.map_shards(RankLabels(stabilities), [stabilities], gives=["pseudo_labels"])


def for_tuning_only() -> ConfigError:
    """What a run is told that would label images by a model that known classes were hidden from."""
    return ConfigError(
        "a discovery that labels were withheld from is for tuning only",
        where="stages.discover.hold_out.share",
        fix="set it to 0, or stop at discover: --until discover",
    )


@dataclass(frozen=True)
class MeasureStability:
    """Shard task: unlabeled crops and their assignments -> label, probability and stability."""

    spec: Mapping[str, Any]
    snapshots: tuple[TensorFile, ...]
    config: Config
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        from gcdis_ray.methods.gcdis.inference import infer_crops
        from gcdis_ray.methods.gcdis.model import load_discovery_model

        models = [
            load_discovery_model(self.spec, file.load()).to(device) for file in self.snapshots
        ]

        def measure(index: int, crops: pa.Table, assignments: pa.Table) -> Mapping[str, pa.Table]:
            free = pa.array(crops["class_index"].to_numpy() < 0)
            crops, assignments = crops.filter(free), assignments.filter(free)
            found = [infer_crops(model, self.spec, crops) for model in models]
            scores = stability(
                np.stack([one.probabilities_NC for one in found]),
                self.config.score,
                probability_floor=self.config.probability_floor,
                divergence_floor=self.config.divergence_floor,
            )
            best = [float(row[0]) for row in assignments["topk_probabilities"].to_pylist()]
            table = {
                "crop_index": crops["crop_index"],
                "image_id": crops["image_id"],
                "source_id": crops["source_id"],
                "class_index": assignments["cluster_id"],
                "probability": pa.array(best, pa.float32()),
                "stability": pa.array(scores.astype(np.float32)),
            }
            return {"stabilities": pa.table(table)}

        return measure


@dataclass(frozen=True)
class RankLabels:
    """Shard task: a shard of stabilities -> pseudo_labels, ranked among all shards."""

    everything: Table

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        table = self.everything.read(["class_index", "stability"])
        shares = classwise_rank_share(
            table["stability"].to_numpy().astype(np.float64), table["class_index"].to_numpy()
        )
        starts = np.cumsum([0] + [shard.rows or 0 for shard in self.everything.shards])

        def rank(index: int, stabilities: pa.Table) -> Mapping[str, pa.Table]:
            mine = shares[starts[index] : starts[index + 1]].astype(np.float32)
            return {"pseudo_labels": stabilities.append_column("reliability", pa.array(mine))}

        return rank
