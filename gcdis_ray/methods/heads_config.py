"""Configuration of the heads that trained methods share. No torch: ``plan`` reads this."""

from __future__ import annotations

from pydantic import Field

from gcdis_ray.config import Closed


class HeadsConfig(Closed):
    """Projection head and cosine classifier; the paper has 2048 hidden, 256 out and no norms."""

    projection_hidden: int = Field(256, ge=8, le=8192)
    projection_dim: int = Field(128, ge=8, le=2048)
    projection_norm: bool = Field(True, description="batch norm inside the projection head")
    feature_norm: bool = Field(True, description="batch norm on the encoder's features")
