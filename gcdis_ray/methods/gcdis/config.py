"""Configuration of the discovery model and its training. No torch: ``plan`` reads this."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gcdis_ray.config import Closed
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.errors import ConfigError

_ENCODER = "stages.discover.gcdis.model.encoder"


class EncoderConfig(Closed):
    """Encoder b. The paper is ResNet-50: ``block: bottleneck, blocks: [3, 4, 6, 3], widths: [256,
    512, 1024, 2048], stem_width: 64, stem_kernel: 7, stem_stride: 2`` at 224 px.

    ``body: mobilenet_v2`` starts from ``weights`` and takes nothing else from here but ``input_px``
    and ``frozen``. Weights of a resnet are in torchvision's names, and ``block``, ``blocks``,
    ``widths`` and stem must be those of the file (``stem_pool: true``).
    """

    body: Literal["resnet", "mobilenet_v2"] = "resnet"
    weights: str | None = Field(
        None,
        description="file that training starts from: safetensors, or for mobilenet_v2 also npz",
    )
    weights_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of that file; it is refused if it differs"
    )
    frozen: bool = Field(
        False, description="keep a mobilenet_v2 as loaded: only attention and heads learn"
    )
    input_px: int = Field(32, ge=16, le=1024, description="side of the square crops it sees")
    block: Literal["basic", "bottleneck"] = "basic"
    blocks: tuple[int, ...] = Field((1, 1, 1), min_length=1, max_length=6)
    widths: tuple[int, ...] = Field((32, 64, 128), min_length=1, max_length=6)
    stem_width: int = Field(32, ge=4, le=512)
    stem_kernel: Literal[3, 5, 7] = 3
    stem_stride: Literal[1, 2] = 2
    stem_pool: bool = Field(False, description="max-pool after the stem: a quarter of the cost")
    mask_input: bool = Field(
        False,
        description="give the mask as a fourth channel. The paper shows it to the attention loss "
        "only; as input it spares a small encoder from scratch most of the way to shape",
    )

    @model_validator(mode="after")
    def _fits(self) -> EncoderConfig:
        if len(self.blocks) != len(self.widths):
            raise ValueError("blocks and widths need one entry per stage each")
        if min(self.blocks) < 1 or min(self.widths) < 8 or any(w % 4 for w in self.widths):
            raise ValueError("blocks must be at least 1, widths at least 8 and multiples of 4")
        if self.weights is not None and self.weights_sha256 is None:
            raise ConfigError(
                "the weights file has no checksum",
                where=f"{_ENCODER}.weights_sha256",
                fix="set it (sha256sum FILE)",
            )
        if self.body == "mobilenet_v2" and self.mask_input:
            raise ConfigError(
                "mobilenet_v2 sees three channels, no mask",
                where=f"{_ENCODER}.mask_input",
                fix="set it to false, or use body: resnet",
            )
        if self.body == "resnet" and self.frozen:
            raise ConfigError(
                "only mobilenet_v2 can be frozen",
                where=f"{_ENCODER}.frozen",
                fix="set it to false, or use body: mobilenet_v2 with weights",
            )
        return self

    def check_start(self) -> None:
        """What a training needs to start, and a trained model does not.

        Raises:
            ConfigError: weights are missing.
        """
        if self.weights is not None:
            return
        if self.body == "mobilenet_v2":
            raise ConfigError(
                "body mobilenet_v2 is not trained from scratch here and needs weights",
                where=f"{_ENCODER}.weights",
                fix="set weights and weights_sha256 there, or use body: resnet",
            )
        if self.weights_sha256 is not None:
            raise ConfigError(
                "a checksum, but no weights file",
                where=f"{_ENCODER}.weights",
                fix="set both weights and weights_sha256, or none",
            )


class AttentionConfig(Closed):
    """Soft attention module after every stage; of a frozen encoder, after the last one only."""

    enabled: bool = True
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


class HeadsConfig(Closed):
    """Projection head and cosine classifier; the paper has 2048 hidden, 256 out and no norms."""

    projection_hidden: int = Field(256, ge=8, le=8192)
    projection_dim: int = Field(128, ge=8, le=2048)
    projection_norm: bool = Field(True, description="batch norm inside the projection head")
    feature_norm: bool = Field(True, description="batch norm on the encoder's features")


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
    balance: float = Field(
        0.0,
        ge=0,
        le=100,
        description="mean-entropy regulariser (SimGCD) within the clustering loss; 0 = paper",
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
    prototypes start at random. When the clustering loss starts, after a share of training without
    it (``losses.clustering_from`` above 0), the others place them where they tell apart clusters of
    the momentum encoder's projections."""

    start: Literal["linkage", "kmeans", "random"] = Field(
        "linkage",
        description="linkage: semi-supervised average linkage, best for a long tail of up to some "
        "hundred classes; kmeans: semi-supervised k-means, for many crops; random: paper",
    )
    samples: int = Field(
        6000, ge=10, le=10_000_000, description="crops it looks at; linkage needs samples^2 memory"
    )
    min_share: float = Field(
        0.005, ge=0, le=0.5, description="linkage: smaller clusters are outliers, not classes"
    )
    labeled_stretch: float = Field(
        1.5,
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

    def starting_at(self, weights: str | None) -> Self:
        """The same with another weights file, or without: weights come from elsewhere."""
        encoder = self.encoder.model_copy(update={"weights": weights})
        return self.model_copy(update={"encoder": encoder})

    def located(self) -> Self:
        """The same with an absolute path: workers may run in another folder."""
        weights = self.encoder.weights
        return self.starting_at(None if weights is None else str(Path(weights).resolve()))

    def key_fields(self) -> dict[str, Any]:
        """Plain data for an artifact's key: what the weights are, not where they lie."""
        return self.model_dump(mode="json", exclude={"encoder": {"weights"}})


class DiscoveryConfig(Closed):
    """How f_d learns, but for the optimiser."""

    momentum: float = Field(
        0.999, ge=0, lt=1, description="of the momentum encoder, per step; 0.99 for short runs"
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
    cache_px: int = Field(40, ge=16, le=2048, description="side at which crops are kept")
    temperature: TemperatureConfig = TemperatureConfig.model_validate({})
    target: TargetConfig = TargetConfig.model_validate({})
    losses: LossesConfig = LossesConfig.model_validate({})
    augment: CropAugmentConfig = CropAugmentConfig.model_validate({})
    prototypes: PrototypeConfig = PrototypeConfig.model_validate({})
