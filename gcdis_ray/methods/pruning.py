"""What pruning asks of a trained method: where its snapshots put every crop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gcdis_ray.clustering.pruning import Agreement, Pruned, prune
from gcdis_ray.methods.gcdis.config import PruneConfig
from gcdis_ray.methods.method import StoredMethod
from gcdis_ray.methods.tables import AGREEMENT


@dataclass(frozen=True)
class CompareSnapshots:
    """Shard task: crops -> agreement, of un-augmented crops over all outputs.

    Args:
        stored: with at least one snapshot, without groups.
    """

    stored: StoredMethod
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        models = self.stored.open_snapshots(device)

        def compare(index: int, crops: pa.Table) -> Mapping[str, pa.Table]:
            found = [model.infer(crops).probabilities_NC for model in models]
            num_outputs, last_N = found[-1].shape[1], found[-1].argmax(axis=1)
            confidence_N = found[-1].max(axis=1).astype(np.float64)
            tables = []
            for step, probabilities_NK in zip(self.stored.snapshots, found, strict=True):
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
                tables.append(pa.table(columns, names=AGREEMENT.names))
            return {"agreement": pa.concat_tables(tables).cast(AGREEMENT)}

        return compare


def prune_outputs(
    stored: StoredMethod, num_known: int, agreement: pa.Table, config: PruneConfig
) -> Pruned:
    """Which outputs of the trained method become clusters.

    Args:
        stored: without groups.
        agreement: of all shards, by :class:`CompareSnapshots`.
    """
    return prune(
        Agreement(*(agreement[name].to_numpy() for name in AGREEMENT.names)),
        stored.open("cpu").prototypes_KF(),
        num_known,
        min_members=config.min_members,
        min_confidence=config.min_confidence,
        merge_cosine=config.merge_cosine,
    )
