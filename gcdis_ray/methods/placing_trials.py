"""What placing chooses between, and how each choice does on withheld labels.

Shape letters: G points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.methods.hold_out import HoldOut, choose_hidden
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.methods.tables import PLACING_TRIALS
from gcdis_ray.store.artifacts import TensorFile

if TYPE_CHECKING:
    from gcdis_ray.methods.placing_points import PlacingPoints

Ints = NDArray[np.int64]

SHARE = 1 / 3  # of the told classes, hidden, and of the labels of the others, withheld


class Candidate(NamedTuple):
    """A way to place points.

    Args:
        clusterer: linkage, semi-supervised k-means, or k-means.
        stretch: of linkage only.
    """

    space: str
    clusterer: str
    stretch: float | None = None

    def __str__(self) -> str:
        if self.stretch is None:
            return f"{self.clusterer}, {self.space}"
        return f"{self.clusterer}, {self.space}, stretch {self.stretch:g}"


def partitions(
    points: PlacingPoints,
    labels_G: Ints,
    num_known: int,
    num_classes: int,
    candidates: Sequence[Candidate],
    seed: int,
) -> dict[Candidate, Ints]:
    """Clusters (G,) of all points by each candidate: known classes first.

    Args:
        labels_G: in the place of those of the points: some may be withheld.
    """
    from gcdis_ray.clustering.partitions import (
        linkage_clusters,
        named_kmeans_clusters,
        semi_supervised_kmeans_clusters,
    )

    found: dict[Candidate, Ints] = {}
    classes = num_known, num_classes
    for space in dict.fromkeys(candidate.space for candidate in candidates):
        mine = [candidate for candidate in candidates if candidate.space == space]
        means_GC = points.means[space].double().numpy()
        linked = [candidate for candidate in mine if candidate.clusterer == "linkage"]
        if linked:
            stretches = [float(candidate.stretch or 0) for candidate in linked]
            trees = linkage_clusters(means_GC, labels_G, points.weight_G, *classes, stretches)
            found |= dict(zip(linked, trees, strict=True))
        for candidate in mine:
            if candidate.clusterer == "k-means":
                found[candidate] = named_kmeans_clusters(means_GC, labels_G, *classes, seed)
            elif candidate.clusterer == "semi-supervised k-means":
                found[candidate] = semi_supervised_kmeans_clusters(
                    means_GC, labels_G, *classes, seed
                )
    return found


def candidates_in(space: str, stretches: Sequence[float]) -> list[Candidate]:
    """All that is tried in a space."""
    return [
        *(Candidate(space, "linkage", stretch) for stretch in stretches),
        Candidate(space, "semi-supervised k-means"),
        Candidate(space, "k-means"),
    ]


def withhold(labels_G: Ints, num_known: int, seed: int) -> HoldOut:
    """A way to withhold labels.

    Raises:
        ConfigError: fewer than two classes have labels.
    """
    config = HoldOutConfig(share=SHARE, withheld=SHARE, seed=seed, every=0)
    found = choose_hidden(labels_G, num_known, config)
    assert found is not None, "a share is hidden"
    return found


@dataclass(frozen=True)
class TryPlacing:
    """Shard task without tables that gives ``placing_trials``: all candidates of one space, judged
    by one way to withhold labels."""

    points: TensorFile
    num_known: int
    num_classes: int
    stretches: tuple[float, ...]
    seed: int

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        from gcdis_ray.methods.placing_points import PlacingPoints

        tensors = self.points.load()

        def run(index: int, *, space: str, split: int) -> Mapping[str, pa.Table]:
            points = PlacingPoints.of(tensors, [space])
            seed = (1000 * self.seed + split) % 2**31
            hold_out = withhold(points.labels_G, self.num_known, seed)
            told_G = hold_out.told(points.labels_G)
            candidates = candidates_in(space, self.stretches)
            found = partitions(
                points, told_G, hold_out.num_visible, self.num_classes, candidates, self.seed
            )
            rows = []
            for candidate, cluster_G in found.items():
                score = hold_out.score_all(cluster_G, points.labels_G)
                rows.append({"split": split, **candidate._asdict(), **score._asdict()})
            return {"placing_trials": pa.Table.from_pylist(rows, PLACING_TRIALS)}

        return run
