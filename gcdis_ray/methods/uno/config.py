"""How UNO learns. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from gcdis_ray.config import Closed, TrainingConfig
from gcdis_ray.methods.heads_on_body_config import HeadsOnBodyConfig


class NovelHeadsConfig(Closed):
    """Heads for novel classes, each a projection with prototypes. All learn; the one of lowest loss
    sorts crops."""

    heads: int = Field(5, ge=1, le=100, description="5 in the paper")
    over_heads: int = Field(
        0,
        ge=0,
        le=100,
        description="over-clustering heads; they help a body that learns, and nothing else; 5 in "
        "the paper",
    )
    over_factor: int = Field(
        3, ge=1, le=100, description="prototypes of those, for each novel output"
    )


class PseudoLabelConfig(Closed):
    """Pseudo-labels of unlabeled crops, by Sinkhorn and Knopp."""

    epsilon: float = Field(0.05, ge=0.005, le=10, description="smaller is harder")
    iterations: int = Field(3, ge=1, le=10_000)
    novel_only: bool = Field(
        False,
        description="over novel outputs alone, as in the paper, whose unlabeled crops are all of "
        "novel classes; else over all outputs",
    )
    crops: int | None = Field(
        None,
        ge=0,
        le=10_000_000,
        description="crops of earlier steps that share the sizes of clusters with a batch; none: "
        "20 for each output; 0: the batch alone (paper)",
    )
    after: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of training before they are used: until then labels alone teach, and "
        "with start: placed the clusters that crops were placed in",
    )
    anchor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a pseudo-label that stays at the cluster its crop was placed in; 0: "
        "paper",
    )


class Config(HeadsOnBodyConfig):
    """Defaults fit some thousand crops, a body that does not learn and a CPU. The paper trains a
    ResNet-18 for 500 epochs at lr 0.4 and batch 512, from ``start: random`` with ``sizes:
    uniform``, on two large and two small views; here there are two views."""

    method: ClassVar[str] = "uno"
    training: TrainingConfig = TrainingConfig.model_validate(
        {"steps": 400, "batch_size": 128, "lr": 0.1, "weight_decay": 1.5e-4}
    )
    novel: NovelHeadsConfig = NovelHeadsConfig.model_validate({})
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig.model_validate({})
    temperature: float = Field(0.1, gt=0, le=1, description="of the softmax over cosines")

    @property
    def num_heads(self) -> int:
        return self.novel.heads + self.novel.over_heads

    @property
    def takes_placed(self) -> bool:
        return super().takes_placed or self.pseudo_labels.anchor > 0

    @model_validator(mode="after")
    def _snapshots_know_novel_classes(self) -> Self:
        if self.first_snapshot() <= self.pseudo_labels.after:
            raise ValueError(
                "a snapshot before pseudo-labels are used knows no novel class: raise "
                "snapshots_from to pseudo_labels.after or above"
            )
        return self
