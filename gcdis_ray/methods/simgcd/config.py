"""How SimGCD learns. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gcdis_ray.config import Closed, TrainingConfig
from gcdis_ray.methods.heads_on_body_config import HeadsOnBodyConfig


class LossesConfig(Closed):
    """Weights and temperatures; defaults are the paper's, but for the anchor."""

    labeled: float = Field(0.35, ge=0, le=1, description="lambda: weight of the losses on labels")
    contrastive: float = Field(1.0, ge=0, le=100, description="scale of both contrastive losses")
    balance: float = Field(
        1.0,
        ge=0,
        le=100,
        description="epsilon: mean-entropy regulariser; 1 to 4 in the paper, by data set",
    )
    balance_crops: int | None = Field(
        None,
        ge=0,
        le=10_000_000,
        description="crops whose mean it looks at, of earlier steps; none: 20 for each output; 0: "
        "the batch alone (paper)",
    )
    anchor: float = Field(
        0.0,
        ge=0,
        le=100,
        description="cross-entropy of unlabeled crops to the clusters placed before training; 0: "
        "paper",
    )
    softmax_temperature: float = Field(0.1, gt=0, le=1, description="of the student's classifier")
    teacher_temperature: float = Field(0.04, gt=0, le=1, description="of the other view's")
    warm_temperature: float = Field(
        0.07, gt=0, le=1, description="of the other view's at the start; falls linearly"
    )
    warm_share: float = Field(
        0.15, ge=0, le=1, description="share of training for that fall; 30 of 200 epochs in paper"
    )
    instance_temperature: float = Field(1.0, gt=0, le=10, description="of InfoNCE")
    class_temperature: float = Field(0.07, gt=0, le=10, description="of SupCon")


class Config(HeadsOnBodyConfig):
    """Defaults fit some thousand crops, a body that does not learn and a CPU. The paper trains the
    last block of a ViT-B/16 (DINO) for 200 epochs at lr 0.1 and batch 128, from ``start: random``
    with ``sizes: uniform``."""

    method: ClassVar[str] = "simgcd"
    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 400, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-5}
    )
    losses: LossesConfig = LossesConfig.model_validate({})

    @property
    def takes_placed(self) -> bool:
        return super().takes_placed or self.losses.anchor > 0
