"""What pruning asks of a trained discovery model: where its snapshots put every crop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gcdis_ray.clustering.pruning import Agreement, Pruned, prune
from gcdis_ray.methods.gcdis.config import PruneConfig
from gcdis_ray.methods.gcdis.inference import infer_crops
from gcdis_ray.methods.gcdis.model import load_discovery_model
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.schemas import SCHEMAS


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
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        models = [
            load_discovery_model(self.spec, file.load()).to(device) for file in self.snapshots
        ]
        num_outputs = int(self.spec["num_classes"])

        def compare(index: int, crops: pa.Table) -> Mapping[str, pa.Table]:
            found = [infer_crops(model, self.spec, crops).probabilities_NC for model in models]
            last_N = found[-1].argmax(axis=1)
            confidence_N = found[-1].max(axis=1).astype(np.float64)
            tables = []
            for step, probabilities_NC in zip(self.steps, found, strict=True):
                pair_N = probabilities_NC.argmax(axis=1) * num_outputs + last_N
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
            return {"agreement": pa.concat_tables(tables).cast(SCHEMAS["agreement"])}

        return compare


def prune_model(
    spec: Mapping[str, Any], weights: TensorFile, agreement: pa.Table, config: PruneConfig
) -> Pruned:
    """Which outputs of the trained model become clusters.

    Args:
        spec: ``encoder_spec`` without groups.
        agreement: of all shards, by :class:`CompareSnapshots`.
    """
    model = load_discovery_model(spec, weights.load())
    return prune(
        Agreement(*(agreement[name].to_numpy() for name in SCHEMAS["agreement"].names)),
        model.classifier.prototypes().numpy(),
        int(spec["num_known"]),
        min_members=config.min_members,
        min_confidence=config.min_confidence,
        merge_cosine=config.merge_cosine,
    )
