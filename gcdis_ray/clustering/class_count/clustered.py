"""One clustering of embeddings, measured against the labels of known classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from gcdis_ray.clustering.class_count.measures import measure
from gcdis_ray.clustering.class_count.points import CountSettings, Points, prepare
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.store.artifacts import Table


def load_points(embeddings: Table, settings: CountSettings, seed: int) -> Points:
    """A draw of the embeddings; see :func:`~gcdis_ray.clustering.class_count.points.prepare`."""
    rows = embeddings.read(["class_index", "embedding"])
    labels_N = torch.tensor(rows["class_index"].to_numpy()).to(torch.int64)
    return prepare(torch.tensor(matrix(rows["embedding"])), labels_N, settings, seed)


@dataclass(frozen=True)
class Clustering:
    """Measures of a k-means into ``num_clusters``, by name. Small to pickle."""

    num_clusters: int
    settings: CountSettings
    seed: int

    def __call__(self, points: Points) -> Mapping[str, float]:
        torch.set_num_threads(1)  # sums depend on it
        found = measure(
            points.points_ND, points.labels_N, self.num_clusters, self.settings, self.seed
        )
        values = asdict(found)
        return {"labeled_accuracy": values.pop("accuracy"), **values}
