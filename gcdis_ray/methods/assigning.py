"""Which class a trained method puts every crop in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.methods.stored_method import StoredMethod, with_embeddings
from gcdis_ray.runtime.devices import Precision
from gcdis_ray.store.artifacts import Table


@dataclass(frozen=True)
class AssignCrops:
    """Shard task: crops, and embeddings where the method uses them -> assignments, of un-augmented
    crops."""

    stored: StoredMethod
    top_k: int
    wants_gpu = True

    @property
    def precision(self) -> Precision:
        return self.stored.precision

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        trained = self.stored.open(device)
        top_k = min(self.top_k, trained.num_outputs)

        def assign(
            index: int, crops: pa.Table, embeddings: pa.Table | None = None
        ) -> Mapping[str, pa.Table]:
            found = trained.infer(with_embeddings(crops, embeddings))
            order = np.argsort(-found.probabilities_NC, axis=1, kind="stable")[:, :top_k]
            ranked = np.take_along_axis(found.probabilities_NC, order, axis=1)
            columns = {
                "crop_index": crops["crop_index"],
                "class_index": crops["class_index"],
                "cluster_id": pa.array(order[:, 0].astype(np.int32)),
                "topk_ids": as_lists(order.astype(np.int32)),
                "topk_probabilities": as_lists(ranked.astype(np.float32)),
                "embedding": as_lists(found.embeddings_ND),
            }
            return {"assignments": pa.table(columns)}

        return assign


def tables_to_assign(stored: StoredMethod, crops: Table, embeddings: Table | None) -> list[Table]:
    """What :class:`AssignCrops` is mapped over."""
    return [crops, *([embeddings] if stored.uses_embeddings and embeddings else [])]
