"""Configuration of the pseudo-novel hold-out. No torch: ``plan`` reads this."""

from __future__ import annotations

from pydantic import Field

from gcdis_ray.config import Closed


class HoldOutConfig(Closed):
    """Pseudo-novel hold-out: known classes whose labels are withheld, to measure how well novel
    classes are found without a label of any. For tuning: stage label refuses what comes of it."""

    share: float = Field(
        0.0, ge=0, le=0.9, description="of the known classes, at least one and not all; 0: off"
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="which of them")
    every: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="steps between measurements while training; 0: at the end only",
    )


class HoldOutOfTrials(HoldOutConfig):
    """Known classes whose labels trials of a sweep hide from discovery."""

    share: float = Field(0.2, gt=0, le=0.9, description="of the known classes, hidden")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of the choice of hidden classes")
    every: int = Field(
        100,
        ge=0,
        le=10_000_000,
        description="training steps between measurements; 0: at the end only",
    )
