"""Configuration of the discovery model and its training. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gcdis_ray.config import Closed
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.heads_config import HeadsConfig


class AttentionConfig(Closed):
    """Soft attention module after every stage of an encoder that learns whole."""

    enabled: bool | None = Field(
        None, description="null: of a resnet; another body has to be a CNN, with trainable: all"
    )
    pools: tuple[int, ...] = Field(
        (4, 3, 2),
        min_length=1,
        max_length=6,
        description="sides of the pooled grids in the first stage, halved per stage; "
        "(18, 12, 8) in the paper at 224 px",
    )
    reduction: int = Field(8, ge=1, le=64, description="channels over reduced channels")
    contour: tuple[float, ...] = Field(
        (0.25, 0.5, 0.75, 1.0),
        min_length=1,
        max_length=6,
        description="loss weight of the mask's contour pixels per stage; the last repeats",
    )


class TemperatureConfig(Closed):
    """Temperature of the contrastive losses."""

    mode: Literal["instance", "fixed", "cosine"] = Field(
        "instance", description="instance: ITA; fixed: minimum for all; cosine: one wave for all"
    )
    minimum: float = Field(0.07, gt=0, le=10)
    maximum: float = Field(1.0, gt=0, le=10)
    neighbor_share: float = Field(
        0.01, gt=0, le=1, description="share of the queue counted as near: a frequency scale"
    )
    momentum: float = Field(0.97, ge=0, lt=1, description="of headness, per visit")
    warmup_epochs: int = Field(1, ge=1, le=10_000, description="epochs at the minimum")
    cosine_periods: float = Field(5.0, gt=0, le=1000, description="waves of mode cosine")

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureConfig:
        if self.maximum < self.minimum:
            raise ValueError("maximum must not be below minimum")
        return self


class TargetConfig(Closed):
    """Target of the clustering loss, from the momentum encoder."""

    kind: Literal["dec", "sharpen"] = Field(
        "dec",
        description="dec: p^2 / f^balance of the paper; sharpen: softmax at a lower temperature "
        "(SimGCD)",
    )
    balance: float = Field(1.0, ge=0, le=1, description="power of the cluster mass f in dec")
    temperature: float = Field(0.1, gt=0, le=1, description="of the momentum encoder's softmax")
    warm_temperature: float = Field(
        0.1, gt=0, le=1, description="at the start of clustering; falls linearly to temperature"
    )
    warm_share: float = Field(0.0, ge=0, le=1, description="share of training for that fall")


class LossesConfig(Closed):
    """Weights. L = attention + (1 - labeled)(instance + clustering) + labeled (class + supervised),
    the paper's L_gcd with lambda = labeled, times the switches below (all 1 in the paper)."""

    labeled: float = Field(0.35, ge=0, le=1, description="lambda")
    attention: float = Field(1.0, ge=0, le=100)
    contrastive: float = Field(1.0, ge=0, le=100, description="scale of both contrastive losses")
    clustering: float = Field(1.0, ge=0, le=100, description="scale of the clustering loss")
    balance: float | None = Field(
        None,
        ge=0,
        le=100,
        description="regulariser of the mean prediction (SimGCD) within the clustering loss; 0 = "
        "paper; null: 1 with prototypes.start: placed, else 0",
    )
    balance_to: Literal["placed", "uniform"] | None = Field(
        None,
        description="sizes that clusters are held to, by the regulariser and by the target's "
        "balance: those of the placed clusters, or all alike (paper); null: placed with "
        "prototypes.start: placed, else uniform",
    )
    anchor: float | None = Field(
        None,
        ge=0,
        le=100,
        description="cross-entropy of unlabeled crops to the clusters that they were placed in, "
        "within the clustering loss; 0 = paper; null: 1 with prototypes.start: placed, else 0",
    )
    clustering_on: Literal["all", "unlabeled"] = Field(
        "all",
        description="crops that the clustering loss is a mean over: all as in the paper's code, or "
        "the unlabeled ones as in its text",
    )
    softmax_temperature: float = Field(0.1, gt=0, le=1, description="of the student's classifier")
    clustering_from: float = Field(
        0.0, ge=0, lt=1, description="share of training before the clustering loss starts"
    )

    def clustering_start(self, steps: int) -> int:
        """Finished steps, of ``steps`` in all, before the clustering loss counts."""
        return round(self.clustering_from * steps)


class PrototypeConfig(Closed):
    """Start of the clustering loss: where prototypes begin. A departure from the paper, whose
    prototypes start at random. When the clustering loss starts, they are fitted to clusters, in the
    space that they lie in: to those placed on the embeddings before training, or to clusters of the
    momentum encoder's projections, after a share of training without the loss
    (``losses.clustering_from`` above 0)."""

    start: Literal["placed", "linkage", "kmeans", "random"] = Field(
        "placed",
        description="placed: clusters of the embeddings; linkage: semi-supervised average linkage "
        "of projections, for encoders from scratch and up to some hundred classes; kmeans: "
        "semi-supervised k-means of projections, for many crops; random: paper",
    )
    balanced: bool = Field(
        False, description="clusters count alike when prototypes are fitted, not crops"
    )
    samples: int = Field(
        6000, ge=10, le=10_000_000, description="crops it looks at; linkage needs samples^2 memory"
    )
    min_share: float = Field(
        0.0, ge=0, le=0.5, description="linkage: smaller clusters are outliers, not classes"
    )
    labeled_stretch: float = Field(
        1.0,
        ge=0.1,
        le=10,
        description="linkage: factor on distances between labeled and unlabeled crops; more keeps "
        "look-alike novel classes apart from known ones",
    )
    restarts: int = Field(10, ge=1, le=1000, description="starts of k-means")


class ModelConfig(Closed):
    """Everything needed to build f_d, but for the number of classes."""

    encoder: EncoderConfig = EncoderConfig.model_validate({})
    attention: AttentionConfig = AttentionConfig.model_validate({})
    heads: HeadsConfig = HeadsConfig.model_validate({})

    @property
    def attends(self) -> bool:
        """Whether soft attention gates the stages."""
        wanted = self.attention.enabled
        return self.encoder.body == "resnet" if wanted is None else wanted

    def stored(self) -> dict[str, Any]:
        """Plain data of which a trained model is built again, beside its trunk's."""
        return self.model_dump(mode="json", exclude={"encoder"})

    def key_fields(self) -> dict[str, Any]:
        """Plain data for an artifact's key."""
        return self.stored() | {"encoder": self.encoder.key_fields()}


class DiscoveryConfig(Closed):
    """How f_d learns, but for the optimiser."""

    momentum: float = Field(
        0.99, ge=0, lt=1, description="of the momentum encoder, per step; 0.999 in the paper"
    )
    momentum_start: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="momentum at the first step, rising to momentum along a cosine; null: constant",
    )
    negatives: Literal["queue", "batch"] = Field(
        "queue",
        description="keys an anchor is contrasted with: batch and queue (paper), or only the "
        "batch: in short runs the momentum encoder outruns older keys, which then are too easy",
    )
    queue_size: int = Field(
        4096, ge=1, le=10_000_000, description="keys kept; 65536 in the paper; below the crops"
    )
    labeled_share: float | None = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of labeled crops in a batch; null: crops as they come (paper's code)",
    )
    cache_px: int | None = Field(
        None,
        ge=16,
        le=2048,
        description="side at which crops are kept; null: a quarter more than the encoder sees",
    )
    temperature: TemperatureConfig = TemperatureConfig.model_validate({})
    target: TargetConfig = TargetConfig.model_validate({})
    losses: LossesConfig = LossesConfig.model_validate({})
    augment: CropAugmentConfig = CropAugmentConfig.model_validate({})
    prototypes: PrototypeConfig = PrototypeConfig.model_validate({})

    @property
    def sizes(self) -> Literal["placed", "uniform"]:
        """That clusters are held to."""
        wanted = self.losses.balance_to
        return wanted or ("placed" if self.prototypes.start == "placed" else "uniform")

    @property
    def anchor(self) -> float:
        return self._placed_or(self.losses.anchor)

    @property
    def balance(self) -> float:
        return self._placed_or(self.losses.balance)

    @property
    def takes_placed(self) -> bool:
        """It cannot train without clusters that were placed before."""
        return self.prototypes.start == "placed"

    def _placed_or(self, weight: float | None) -> float:
        return float(self.takes_placed) if weight is None else weight

    @model_validator(mode="after")
    def _numbers_are_of_one_placing(self) -> Self:
        if not self.takes_placed and (self.anchor or self.sizes == "placed"):
            raise ValueError(
                f"prototypes.start: {self.prototypes.start} numbers clusters otherwise than those "
                "placed before: leave losses.anchor at 0 and losses.balance_to at uniform"
            )
        return self
