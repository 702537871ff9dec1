"""Configuration of pruning. No torch: ``plan`` reads this."""

from __future__ import annotations

import math

from pydantic import Field

from gcdis_ray.config import Closed


class PruneConfig(Closed):
    """More outputs than the estimated classes while training, fewer clusters afterwards: outputs
    that few crops use are dropped, those that share a class are joined
    (:mod:`gcdis_ray.clustering.pruning`)."""

    enabled: bool = Field(False, description="drop and join outputs after training")
    over_provision: float = Field(
        1.0,
        ge=1,
        le=100,
        description="outputs trained per estimated (or given) novel class, pruned or not",
    )
    min_members: int = Field(
        5, ge=0, le=1_000_000, description="crops below which a novel output is dropped"
    )
    min_confidence: float = Field(
        0.3,
        ge=0,
        le=1,
        description="mean largest probability of its crops below which a novel output is dropped",
    )
    merge_cosine: float = Field(
        0.9,
        ge=-1,
        le=1,
        description="cosine of prototypes above which two novel clusters are joined, if their "
        "joint stability over the snapshots does not fall; 1: never",
    )

    def num_outputs(self, num_known: int, num_classes: int) -> int:
        """Outputs to train for that many classes, known ones included."""
        wanted = self.over_provision * (num_classes - num_known)
        return num_known + math.ceil(round(wanted, 6))  # 1.1 * 10 is not 12
