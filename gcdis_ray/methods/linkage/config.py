"""How crops that were not placed find their cluster. No torch: ``plan`` reads this."""

from __future__ import annotations

from pydantic import Field

from gcdis_ray.config import StageConfig


class Config(StageConfig):
    """Where crops are placed, and how, is chosen by withheld labels (``stages.discover.placing``).
    Here is what follows: a prototype for each cluster, for crops that were not placed."""

    temperature: float = Field(
        0.1, gt=0, le=10, description="of the softmax over cosines that gives probabilities"
    )
    steps: int = Field(200, ge=1, le=100_000, description="of fitting the prototypes")
    max_crops: int = Field(
        20_000,
        ge=10,
        le=10_000_000,
        description="crops that prototypes are fitted to, at random; they are held in memory",
    )
