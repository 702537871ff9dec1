"""Configuration of methods that train heads on a body, from placed clusters. No torch: ``plan``
reads this."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.heads_config import HeadsConfig
from gcdis_ray.methods.snapshot_config import SnapshotConfig


class HeadsOnBodyConfig(SnapshotConfig):
    """A body, heads on its features, the crops they are shown, and what is taken from the clusters
    that were placed before training."""

    encoder: EncoderConfig = EncoderConfig.model_validate({})
    heads: HeadsConfig = HeadsConfig.model_validate({})
    start: Literal["placed", "random"] = Field(
        "placed",
        description="where outputs begin: at the clusters that were placed on the embeddings, or "
        "at random as in the paper",
    )
    sizes: Literal["placed", "uniform"] = Field(
        "placed",
        description="sizes that clusters are drawn to: those of the placed ones, or all alike as "
        "in the paper, which is wrong on a long tail",
    )
    labeled_share: float | None = Field(
        0.5, gt=0, lt=1, description="share of labeled crops in a batch; null: crops as they come"
    )
    cache_px: int | None = Field(
        None,
        ge=16,
        le=2048,
        description="side at which crops are kept; null: a quarter more than they are shown at",
    )
    augment: CropAugmentConfig = CropAugmentConfig.model_validate({})

    def key_fields(self) -> dict[str, Any]:
        return super().key_fields() | {"encoder": self.encoder.key_fields()}

    @model_validator(mode="after")
    def _encoder_can_start(self) -> Self:
        self.encoder.check_start(self.augment)
        return self

    @property
    def num_heads(self) -> int:
        """Projections that are trained, for a forecast."""
        return 1

    @property
    def takes_placed(self) -> bool:
        """It cannot train without clusters that were placed before."""
        return "placed" in (self.start, self.sizes)
