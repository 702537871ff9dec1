"""Configuration of placing. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gcdis_ray.config import Closed


class PlacingConfig(Closed):
    """How crops are placed in clusters before anything is trained: which space, clusterer and
    stretch suit the embeddings at hand is found by withholding labels."""

    splits: int = Field(
        8, ge=1, le=1000, description="ways in which labels are withheld to choose by"
    )
    best: int = Field(
        5, ge=1, le=1000, description="partitions, best first, that are joined to one"
    )
    stretches: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75),
        min_length=1,
        max_length=50,
        description="linkage: factors on distances between labeled and unlabeled crops",
    )
    dims: int = Field(
        128, ge=2, le=4096, description="principal components of spaces that have fewer dimensions"
    )
    points_tried: int = Field(
        1000,
        ge=10,
        le=100_000,
        description="unlabeled points, and labeled ones, to choose by; more crops are joined to "
        "small clusters first. Time and memory grow with the square",
    )
    points: int = Field(
        6000, ge=10, le=100_000, description="the same, for the partitions that are joined"
    )
