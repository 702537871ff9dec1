"""label: which of the discovered labels can be trusted, and how much?

A pseudo-label is as stable as the discovery model's snapshots agree on it (s_i), and as reliable
as its rank among the pseudo-labels of the same class (u_i), so that rare classes keep their best.

Where people curated the classes, the label is theirs: probabilities of outputs that became one
class are summed, and crops of rejected ones have no pseudo-label. All others are judged by their
own distribution over what is then told apart, those of a part that was split off as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from gcdis_ray.clustering.reliability import (
    Stability,
    classwise_rank_share,
    margin,
    stability,
)
from gcdis_ray.config import StageConfig
from gcdis_ray.curating.outputs import Outputs
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.hold_out_config import for_tuning_only
from gcdis_ray.methods.method import InferEach, load_method
from gcdis_ray.methods.stored_method import StoredMethod, with_embeddings
from gcdis_ray.runtime.base import Work
from gcdis_ray.runtime.devices import Precision
from gcdis_ray.stages.discover import Discovery
from gcdis_ray.store.artifacts import Size, Table, Workload
from gcdis_ray.store.members import Inputs, optional, table, whole
from gcdis_ray.store.schemas import PSEUDO_LABELS, schema

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

STABILITIES = schema(  # of unlabeled crops, before they are ranked
    crop_index=pa.int64(),
    image_id=pa.int64(),
    source_id=pa.int64(),
    cluster_id=pa.int32(),
    probability=pa.float32(),
    stability=pa.float32(),
)

ID = "label"
VERSION = 2
TAKES = (
    "crops",
    "assignments",
    optional("partition"),
    optional("curation"),
    whole("method"),
    optional("embeddings"),
    optional("holdout"),
)
GIVES = (table("stabilities", STABILITIES), table("pseudo_labels", PSEUDO_LABELS))
SEEDED = False


class Config(StageConfig):
    score: Stability | Literal["margin"] | None = Field(
        None,
        description="stability: inv_sum is the paper's sum of 1 / KL(last || earlier), neg_mean_kl "
        "is not ruled by the closest snapshot, last_k_agreement counts equal labels; margin is the "
        "log ratio of the two largest probabilities and needs no snapshots. None: inv_sum where "
        "the method keeps snapshots, else margin",
    )
    probability_floor: float = Field(1e-8, gt=0, le=1e-2, description="of the distributions")
    divergence_floor: float = Field(1e-6, gt=0, le=1, description="smallest KL")


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    discover = givers["method"]
    if isinstance(discover, Discovery):
        if discover.hold_out.share > 0:
            raise for_tuning_only()
        if not load_method(discover.method).SNAPSHOTS:
            _check_score(config, discover.method)


def _check_score(config: Config, method: str) -> None:
    if config.score not in (None, "margin"):
        raise ConfigError(
            f"{method} has no snapshots to compare",
            where="stages.label.score",
            fix="set it to margin, or leave it out",
        )


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Most crops are unlabeled. Every snapshot is read, and all crops for them."""
    rows = round(0.85 * inputs["assignments"].rows)
    return Size(rows, 36 * rows, inputs["crops"].bytes + inputs["method"].bytes)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All crops, each by every snapshot."""
    return Workload(rows=inputs["crops"].rows)


def sections(view: RunView) -> Sequence[Section]:
    """The classes again, now with how far each label is trusted."""
    from gcdis_ray.report.class_sections import class_sections

    return class_sections(view)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    if inputs.has("holdout"):
        raise for_tuning_only()
    stored = StoredMethod.read(inputs.beside("method"))
    if not stored.snapshots:
        _check_score(config, stored.name)
    tables = [inputs.table("crops"), inputs.table("assignments")]
    outputs = None
    if inputs.has("partition"):
        outputs = Outputs.read(inputs.json("curation"))
        tables.append(inputs.table("partition"))
    if outputs and outputs.any_joined:
        stored = stored.joined(outputs.groups)
    if stored.uses_embeddings and inputs.has("embeddings"):
        tables.append(inputs.table("embeddings"))
    task = MeasureStability(stored, config, outputs)
    stabilities = work.map_shards(task, tables, gives=["stabilities"])
    rank = RankLabels(stabilities["stabilities"])
    work.map_shards(rank, [stabilities["stabilities"]], gives=["pseudo_labels"])


@dataclass(frozen=True)
class MeasureStability:
    """Shard task: unlabeled crops, their assignments and, where there are curated classes, their
    partition, where the method uses them, embeddings -> label, probability and stability.

    Args:
        stored: speaks of the groups of ``outputs`` if any are joined.
        outputs: what became of clusters; None where nobody is asked.
    """

    stored: StoredMethod
    config: Config
    outputs: Outputs | None = None
    wants_gpu = True

    @property
    def precision(self) -> Precision:
        return self.stored.precision

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        score = self.config.score or ("inv_sum" if self.stored.snapshots else "margin")
        if score == "margin":
            last = self.stored.open(device)
            infer: InferEach = lambda crops: last.infer(crops).probabilities_NC[None]  # noqa: E731
        else:
            infer = self.stored.open_snapshots(device)

        def measure(
            index: int,
            crops: pa.Table,
            assignments: pa.Table,
            *others: pa.Table,
        ) -> Mapping[str, pa.Table]:
            labels = assignments if self.outputs is None else others[0]
            embeddings = next(iter(others[self.outputs is not None :]), None)
            free_N = crops["class_index"].to_numpy() < 0
            free = pa.array(free_N & (labels["cluster_id"].to_numpy() >= 0))
            crops = with_embeddings(crops, embeddings).filter(free)
            assignments, labels = assignments.filter(free), labels.filter(free)
            found = infer(crops)
            if score == "margin":
                scores = margin(found[-1], probability_floor=self.config.probability_floor)
            else:
                scores = stability(
                    found,
                    score,
                    probability_floor=self.config.probability_floor,
                    divergence_floor=self.config.divergence_floor,
                )
            best = np.array([row[0] for row in assignments["topk_probabilities"].to_pylist()])
            if self.outputs and self.outputs.any_joined:
                best = _of_group(best, found[-1], assignments["cluster_id"], self.outputs)
            columns = {
                "crop_index": crops["crop_index"],
                "image_id": crops["image_id"],
                "source_id": crops["source_id"],
                "cluster_id": labels["cluster_id"],
                "probability": pa.array(best.astype(np.float32)),
                "stability": pa.array(scores.astype(np.float32)),
            }
            return {"stabilities": pa.table(columns)}

        return measure


def _of_group(
    best_N: np.ndarray, probabilities_NG: np.ndarray, cluster: pa.ChunkedArray, outputs: Outputs
) -> np.ndarray:
    """The probability of each crop's cluster, with that of those it was joined to."""
    group_N = outputs.group_of(cluster.to_numpy())
    joined = np.array([len(group) > 1 for group in outputs.groups])[group_N]
    return np.where(joined, probabilities_NG[np.arange(len(group_N)), group_N], best_N)


@dataclass(frozen=True)
class RankLabels:
    """Shard task: a shard of stabilities -> pseudo_labels, ranked among all shards."""

    everything: Table

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        rows = self.everything.read(["cluster_id", "stability"])
        shares = classwise_rank_share(
            rows["stability"].to_numpy().astype(np.float64), rows["cluster_id"].to_numpy()
        )
        starts = np.cumsum([0] + [shard.rows or 0 for shard in self.everything.shards])

        def rank(index: int, stabilities: pa.Table) -> Mapping[str, pa.Table]:
            mine = shares[starts[index] : starts[index + 1]].astype(np.float32)
            return {"pseudo_labels": stabilities.append_column("reliability", pa.array(mine))}

        return rank
