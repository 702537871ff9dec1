"""What pruning asks of a trained method: where its snapshots put every crop.

Shape letters: N crops, K outputs, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.clustering.pruning import Agreement, Pruned, prune
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.methods.stored_method import StoredMethod, with_embeddings
from gcdis_ray.methods.tables import AGREEMENT
from gcdis_ray.runtime.devices import Precision

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CompareSnapshots:
    """Shard task: crops, and embeddings where the method uses them -> agreement, of un-augmented
    crops over all outputs.

    Args:
        stored: with at least one snapshot, without groups.
    """

    stored: StoredMethod
    wants_gpu = True

    @property
    def precision(self) -> Precision:
        return self.stored.precision

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        infer = self.stored.open_snapshots(device)

        def compare(
            index: int, crops: pa.Table, embeddings: pa.Table | None = None
        ) -> Mapping[str, pa.Table]:
            found = infer(with_embeddings(crops, embeddings))
            return {"agreement": agreement(self.stored.snapshots, found)}

        return compare


def agreement(steps: Iterable[int], found: Sequence[Floats] | Floats) -> pa.Table:
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
        tables.append(pa.table(columns, names=AGREEMENT.names))
    return pa.concat_tables(tables).cast(AGREEMENT)


def prune_outputs(
    prototypes_KF: Floats, num_known: int, agreement: pa.Table, config: PruneConfig
) -> Pruned:
    """Which outputs of the trained method become clusters.

    Args:
        prototypes_KF: unit rows, known classes first.
        agreement: of all shards, by :class:`CompareSnapshots`.
    """
    return prune(
        Agreement(*(agreement[name].to_numpy() for name in AGREEMENT.names)),
        prototypes_KF,
        num_known,
        min_members=config.min_members,
        min_confidence=config.min_confidence,
        merge_cosine=config.merge_cosine,
    )
