"""How k-means discovers. No torch: `plan` reads this."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gcdis_ray.config import StageConfig


class Config(StageConfig):
    """Nothing here is fitted to a data set. Centring costs nothing: features of photographs share
    a large common part, beside which the cosines of any two crops differ little. Fewer components
    help where most of the features vary for reasons that have nothing to do with classes; how many
    differs from backbone to backbone, so all are kept."""

    algorithm: Literal["semi_supervised", "plain"] = Field(
        "semi_supervised",
        description="semi_supervised: labeled crops stay in the cluster of their class; plain: "
        "labels only name the clusters, once they are found",
    )
    centre: bool = Field(
        True, description="subtract the mean of all crops before vectors are scaled to length 1"
    )
    components: int | None = Field(
        None, ge=1, le=4096, description="principal components that are kept; none: all dimensions"
    )
    n_init: int = Field(10, ge=1, le=1000, description="starts, of which the best stays")
    max_iterations: int = Field(100, ge=1, le=100_000, description="of each start")
    tolerance: float = Field(
        1e-4,
        ge=0,
        le=1,
        description="stop when the squared shift of all centres is below this share of the "
        "variance",
    )
    max_crops: int = Field(
        100_000,
        ge=1000,
        le=100_000_000,
        description="crops that centres are found on, drawn at random; they are held in memory",
    )
    temperature: float = Field(
        0.1, gt=0, le=10, description="of the softmax over cosines that gives probabilities"
    )
