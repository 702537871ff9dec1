"""What pruning asks of a trained method: where its snapshots put every crop.

Shape letters: N crops, K outputs, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.clustering.pruning import Agreement, Pruned, prune
from gcdis_ray.methods.gcdis.inference import infer_crops
from gcdis_ray.methods.gcdis.model import load_discovery_model
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import SCHEMAS

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CompareSnapshots:
    """Shard task: crops -> agreement, of un-augmented crops over all outputs.

    Args:
        spec: ``encoder_spec`` without groups.
        steps, snapshots: oldest first; at least one.
    """

    spec: Mapping[str, Any]
    steps: Sequence[int]
    snapshots: Sequence[TensorFile]

    def open(self) -> Callable[..., Mapping[str, pa.Table]]:
        models = [load_discovery_model(self.spec, file.load()) for file in self.snapshots]

        def compare(index: int, crops: pa.Table) -> Mapping[str, pa.Table]:
            found = [infer_crops(model, self.spec, crops).probabilities_NC for model in models]
            return {"agreement": agreement(self.steps, found)}

        return compare


def agreement(steps: Sequence[int], found: Sequence[Floats]) -> pa.Table:
    """How often each snapshot's output and the last one's meet: table ``agreement``.

    Args:
        found: (N, K) probabilities of each snapshot, the last one last; at least one.
    """
    num_outputs = found[-1].shape[1]
    last_N = found[-1].argmax(axis=1)
    confidence_N = found[-1].max(axis=1).astype(np.float64)
    tables = []
    for step, probabilities_NK in zip(steps, found, strict=True):
        pair_N = probabilities_NK.argmax(axis=1) * num_outputs + last_N
        pair_E, entry_N = np.unique(pair_N, return_inverse=True)
        size = len(pair_E)
        columns = [
            np.full(size, step),
            pair_E // num_outputs,
            pair_E % num_outputs,
            np.bincount(entry_N, minlength=size),
            np.bincount(entry_N, confidence_N, size),
        ]
        tables.append(pa.table(columns, names=SCHEMAS["agreement"].names))
    return pa.concat_tables(tables).cast(SCHEMAS["agreement"])


def prune_model(
    spec: Mapping[str, Any], weights: TensorFile, agreement: pa.Table, config: PruneConfig
) -> Pruned:
    """Which outputs of the trained model become clusters.

    Args:
        spec: ``encoder_spec`` without groups.
        agreement: of all shards, by :class:`CompareSnapshots`.
    """
    prototypes_KD = load_discovery_model(spec, weights.load()).classifier.prototypes().numpy()
    return prune_outputs(prototypes_KD, int(spec["num_known"]), agreement, config)


def prune_outputs(
    prototypes_KD: Floats, num_known: int, agreement: pa.Table, config: PruneConfig
) -> Pruned:
    """The same, of prototypes: unit rows, known classes first."""
    return prune(
        Agreement(*(agreement[name].to_numpy() for name in SCHEMAS["agreement"].names)),
        prototypes_KD,
        num_known,
        min_members=config.min_members,
        min_confidence=config.min_confidence,
        merge_cosine=config.merge_cosine,
    )
