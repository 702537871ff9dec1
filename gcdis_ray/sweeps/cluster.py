"""Trials that only cluster: a k-means of cached embeddings, measured against the known labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gcdis_ray.clustering.class_count.measures import measure
from gcdis_ray.clustering.class_count.points import CountSettings, Points, prepare
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.store.artifacts import Artifact

Call = tuple[int, CountSettings, int]  # number of clusters, settings, seed of k-means


def load_points(embed: Artifact, settings: CountSettings, seed: int) -> Points:
    """A draw of the embeddings; see :func:`~gcdis_ray.clustering.class_count.points.prepare`."""
    import torch

    rows = embed.table("embeddings").read(["class_index", "embedding"])
    labels_N = torch.tensor(rows["class_index"].to_numpy()).to(torch.int64)
    return prepare(torch.tensor(matrix(rows["embedding"])), labels_N, settings, seed)


def measure_all(points: Points, calls: Sequence[Call]) -> list[Mapping[str, Any]]:
    """Per call the measures of its clustering by name, or ``{"error": line}``. What a task runs."""
    import torch

    torch.set_num_threads(1)  # sums depend on it
    results: list[Mapping[str, Any]] = []
    for num_clusters, settings, seed in calls:
        try:
            found = measure(points.points_ND, points.labels_N, num_clusters, settings, seed)
        except Exception as error:  # one clustering that fails must not end the others
            results.append({"error": line_of(error)})
            continue
        values = asdict(found)
        results.append({"labeled_accuracy": values.pop("accuracy"), **values})
    return results
