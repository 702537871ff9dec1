"""Configuration of a training that starts from placed clusters. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.gcdis.config import EncoderConfig, HeadsConfig
from gcdis_ray.methods.snapshot_config import SnapshotConfig


class PlacedConfig(SnapshotConfig):
    """An encoder with heads, the crops it is shown, and what it takes from the clusters that were
    placed before training."""

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
    cache_px: int = Field(40, ge=16, le=2048, description="side at which crops are kept")
    augment: CropAugmentConfig = CropAugmentConfig.model_validate({})

    def key_fields(self) -> dict[str, Any]:
        weights = {"encoder": {"weights"}}
        return super().key_fields() | self.model_dump(
            mode="json", include={"encoder"}, exclude=weights
        )

    @property
    def takes_placed(self) -> bool:
        """It cannot train without clusters that were placed before."""
        return "placed" in (self.start, self.sizes)
