"""How well discovery sorted the unlabeled crops, beside k-means on the same crops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcdis_ray.clustering.kmeans import kmeans, nearest
from gcdis_ray.data.crops.crop_store import decode_crops
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics import discovery
from gcdis_ray.metrics.frequency import NO_THIRDS, Third, accuracy_by_third
from gcdis_ray.store.artifacts import Table

Ints = NDArray[np.int64]
NO_TRUTH = "no ground truth for {} images"
MAX_KMEANS_CROPS = 100_000  # the baseline finds its centers on at most so many
PIXEL_SIDE_PX = 16


@dataclass(frozen=True)
class Baseline:
    """k-means over all crops, labeled or not, without any label.

    Args:
        num_clusters: as many as were discovered.
        n_init: starts.
    """

    num_clusters: int
    n_init: int
    seed: int

    def of_embeddings(self, embeddings: Table) -> Ints:
        """Cluster of every crop, by crop_index. Centers come from a sample where there are more
        crops than :data:`MAX_KMEANS_CROPS`; vectors are read a shard at a time."""
        total, generator = embeddings.num_rows, torch.Generator().manual_seed(self.seed)
        if total <= MAX_KMEANS_CROPS:
            return self._clusters(list(_vectors(embeddings)), generator)
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.randperm(total, generator=generator)[:MAX_KMEANS_CROPS]] = True
        first, sample = 0, []
        for _, points_ND in _vectors(embeddings):
            sample.append(points_ND[chosen[first : first + len(points_ND)]])
            first += len(points_ND)
        centers_KD = self._centers(torch.cat(sample), generator)
        cluster_N = np.empty(total, dtype=np.int64)
        for crop_index, points_ND in _vectors(embeddings):
            cluster_N[crop_index] = nearest(points_ND, centers_KD)[0].numpy()
        return cluster_N

    def of_pixels(self, crops: Table) -> Ints | None:
        """The same by the pixels of crops, shrunk; None for sets too large to hold."""
        if crops.num_rows > MAX_KMEANS_CROPS:
            return None
        parts = []
        for shard in crops.iter_shards(["crop_index", "jpeg", "mask_png"]):
            images, _ = decode_crops(
                shard["jpeg"].to_pylist(), shard["mask_png"].to_pylist(), PIXEL_SIDE_PX
            )
            parts.append((shard["crop_index"].to_numpy(), images.flatten(1).float() / 255))
        return self._clusters(parts, torch.Generator().manual_seed(self.seed))

    def _clusters(self, parts: list[tuple[Ints, torch.Tensor]], generator: torch.Generator) -> Ints:
        points_ND = torch.cat([points for _, points in parts])
        cluster_N = np.empty(len(points_ND), dtype=np.int64)
        found = nearest(points_ND, self._centers(points_ND, generator))[0].numpy()
        cluster_N[np.concatenate([crop_index for crop_index, _ in parts])] = found
        return cluster_N

    def _centers(self, points_ND: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        wanted = min(self.num_clusters, len(points_ND))
        return kmeans(points_ND, wanted, generator, n_init=self.n_init).centers_KD


def _vectors(embeddings: Table) -> Iterator[tuple[Ints, torch.Tensor]]:
    """crop_index (rows,) and vectors (rows, D) of every shard that holds any."""
    for shard in embeddings.iter_shards(["crop_index", "embedding"]):
        if shard.num_rows:
            yield shard["crop_index"].to_numpy(), torch.tensor(matrix(shard["embedding"]))


def discovery_block(
    cluster_N: Ints,
    truth: CropTruth,
    classes: ClassColumns,
    third_of: dict[int, Third],
    baselines: dict[str, Ints | None],
    match_iou: float,
) -> tuple[dict[str, Any], Ints]:
    """The metrics' ``discovery``, and the column each unlabeled crop was named as (-1 for none).

    Args:
        cluster_N: of every crop, by crop_index.
        third_of: column -> head, mid or tail.
        baselines: ``kmeans_accuracy`` and ``kmeans_pixels_accuracy`` -> clusters of every crop.
    """
    matched_U = truth.category_U >= 0
    cluster_U = cluster_N[truth.crop_index_U]
    block: dict[str, Any] = {
        "accuracy": discovery.NOTHING,
        "accuracy_hungarian": discovery.NOTHING,
        "kmeans_accuracy": discovery.NOTHING,
        "kmeans_pixels_accuracy": discovery.NOTHING,
        "accuracy_by_frequency": NO_THIRDS,
        "kmeans_accuracy_by_frequency": NO_THIRDS,
        "nmi": None,
        "ari": None,
        "num_clusters_used": len(np.unique(cluster_U)),
        "num_crops_scored": truth.num_matched,
        "protocol": {
            "accuracy": f"known_identity: {discovery.PROTOCOLS['known_identity']}",
            "accuracy_hungarian": f"hungarian_all: {discovery.PROTOCOLS['hungarian_all']}",
            "kmeans_accuracy": f"hungarian_all: {discovery.PROTOCOLS['hungarian_all']}",
            "accuracy_by_frequency": "classes by number of true unlabeled objects, in thirds: "
            "share of right crops, matched as for accuracy",
            "crops": "crops of unlabeled training images matched one-to-one to a true object "
            f"at IoU >= {match_iou:g}; all others are left out",
        },
        "reason": None,
    }
    if not matched_U.any():
        block["reason"] = (
            "no crop matches a true object" if truth.num_objects else NO_TRUTH.format("unlabeled")
        )
        return block, np.full(len(matched_U), -1, dtype=np.int64)
    class_M, cluster_M = classes.columns(truth.category_U[matched_U]), cluster_U[matched_U]
    size, known = len(classes), classes.known
    block["accuracy"], mapping = discovery.clustering_accuracy(
        cluster_M, class_M, size, known, classes.column_of_output
    )
    named_U = discovery.named_classes(cluster_U, mapping)
    block["accuracy_hungarian"], _ = discovery.clustering_accuracy(cluster_M, class_M, size, known)
    block["accuracy_by_frequency"] = accuracy_by_third(
        named_U[matched_U] == class_M, class_M, third_of
    )
    block |= discovery.agreement(cluster_M, class_M)
    for name, clusters in baselines.items():
        if clusters is None:
            continue
        found_M = clusters[truth.crop_index_U[matched_U]]
        block[name], mapping = discovery.clustering_accuracy(found_M, class_M, size, known)
        if name == "kmeans_accuracy":
            right_M = discovery.named_classes(found_M, mapping) == class_M
            block["kmeans_accuracy_by_frequency"] = accuracy_by_third(right_M, class_M, third_of)
    return block, named_U
