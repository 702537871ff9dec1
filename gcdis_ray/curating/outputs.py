"""Which class each cluster of discovery has become: for who hears the method's probabilities.

Shape letters: N crops, K clusters of discovery, G groups of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.curating.replay import REJECTED


@dataclass(frozen=True)
class Outputs:
    """Args:
    class_of: of each cluster of discovery, its ``class_index`` now; -1 where it was rejected.
    """

    class_of: tuple[int, ...]

    @classmethod
    def read(cls, curation: Mapping[str, Any]) -> Outputs:
        """From document ``curation``."""
        return cls(tuple(curation["class_of_cluster"]))

    @cached_property
    def groups(self) -> list[list[int]]:
        """Clusters that are one class now, each group by its lowest; a rejected one is alone, so
        that probabilities of the others stay what they are."""
        found: dict[int, list[int]] = {}
        for cluster, which in enumerate(self.class_of):
            found.setdefault(-1 - cluster if which == REJECTED else which, []).append(cluster)
        return list(found.values())

    @property
    def any_joined(self) -> bool:
        return len(self.groups) < len(self.class_of)

    @property
    def class_of_group(self) -> NDArray[np.int64]:
        """(G,) ``class_index``, -1 for a rejected cluster."""
        return np.array([self.class_of[group[0]] for group in self.groups], np.int64)

    def group_of(self, cluster_N: NDArray[np.integer]) -> NDArray[np.int64]:
        """(N,) the group that each cluster is in."""
        table = np.empty(len(self.class_of), np.int64)
        for number, group in enumerate(self.groups):
            table[group] = number
        return table[cluster_N]


def class_of_cluster(classes: Sequence[Mapping[str, Any]], rejected: Sequence[int]) -> list[int]:
    """Inverse of what :class:`~gcdis_ray.curating.replay.Curated` says of classes: by cluster."""
    found = {k: int(row["class_index"]) for row in classes for k in row["clusters"]}
    found |= dict.fromkeys(rejected, REJECTED)
    return [found[k] for k in sorted(found)]
