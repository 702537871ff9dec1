"""Stored embeddings of crops, without all of them in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.store.artifacts import Table


def read_vectors(embeddings: Table, rows: Tensor) -> Tensor:
    """Vectors (R, D) float32 of these rows, in this order; one shard is in memory at a time.

    Args:
        rows: (R,) int64 row numbers of the whole table, R >= 1, each at most once.
    """
    order = torch.argsort(rows)
    wanted, first, parts = rows[order], 0, []
    for shard in embeddings.iter_shards(["embedding"]):
        here = wanted[(wanted >= first) & (wanted < first + len(shard))] - first
        first += len(shard)
        if len(here):
            parts.append(torch.tensor(matrix(shard["embedding"])[here.numpy()]))
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, order, found)
