"""Configuration of a training that keeps snapshots. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from gcdis_ray.config import StageConfig, TrainingConfig
from gcdis_ray.errors import ConfigError


class SnapshotConfig(StageConfig):
    """A training on crops, the weights it keeps on the way, and the memory it may take."""

    method: ClassVar[str]  # whose options these are
    training: TrainingConfig = TrainingConfig.model_validate({})
    snapshots: int = Field(5, ge=2, le=100, description="weights kept to judge reliability")
    snapshots_from: float = Field(
        0.4, ge=0, lt=1, description="share of training before the first of them is counted"
    )
    cache_mb: int = Field(
        2000,
        ge=0,
        le=10_000_000,
        description="decoded crops in memory, once per node; beyond it, encoded in a scratch file",
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"cache_mb"})

    @model_validator(mode="after")
    def _can_train(self) -> Self:
        if self.training.batch_size < 2 * self.training.micro_batches:
            raise ValueError("batch norm needs two crops per part: raise training.batch_size")
        if self.training.epochs is None:
            self.snapshot_steps(self.training.steps)
        return self

    def first_snapshot(self) -> float:
        """Share of training done when the first of them is kept."""
        return self.snapshots_from + (1 - self.snapshots_from) / self.snapshots

    def snapshot_steps(self, steps: int) -> list[int]:
        """Equally spaced over the last part of ``steps``; the last one is the final step.

        Raises:
            ConfigError: fewer than two of them differ.
        """
        late = 1 - self.snapshots_from
        shares = [
            self.snapshots_from + late * (k + 1) / self.snapshots for k in range(self.snapshots)
        ]
        chosen = sorted({max(1, round(share * steps)) for share in shares})
        if len(chosen) < 2:
            raise ConfigError(
                f"{steps} step(s) leave no room for two snapshots",
                where=f"stages.discover.{self.method}.training",
                fix="train for more steps or epochs",
            )
        return chosen
