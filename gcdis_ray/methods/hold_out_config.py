"""Configuration of the pseudo-novel hold-out. No torch: ``plan`` reads this."""

from __future__ import annotations

from pydantic import Field

from gcdis_ray.config import Closed
from gcdis_ray.errors import ConfigError


class HoldOutConfig(Closed):
    """Pseudo-novel hold-out: labels that are withheld, to measure how well classes are found
    without a label of any novel one. For tuning: label and evaluate refuse what comes of it."""

    share: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="of the known classes, hidden whole: at least one and not all; 0: off",
    )
    withheld: float = Field(
        1 / 3, ge=0, le=0.9, description="of the labels of each other known class, but never all"
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


def for_tuning_only() -> ConfigError:
    """What a run is told that would label images, or be scored, by a model that known classes were
    hidden from: its outputs stand for other classes than the run's."""
    return ConfigError(
        "a discovery that labels were withheld from is for tuning only",
        where="stages.discover.hold_out.share",
        fix="set it to 0, or stop at discover: --until discover",
    )
