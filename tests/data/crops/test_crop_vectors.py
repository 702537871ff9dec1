"""Some rows of stored embeddings."""

from __future__ import annotations

import torch
from scene_tables import memory_table

from gcdis_ray.data.crops.crop_vectors import read_vectors


def test_rows_come_in_the_order_they_are_asked_in() -> None:
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    rows = [
        {"crop_index": n, "class_index": -1, "embedding": vector.tolist()}
        for n, vector in enumerate(vectors)
    ]
    table = memory_table("embeddings", [rows[:25], [], rows[25:]])
    wanted = torch.tensor([59, 3, 41, 25, 24, 0])
    torch.testing.assert_close(read_vectors(table, wanted), vectors[wanted], rtol=0, atol=0)
