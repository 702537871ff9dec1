"""Configuration of the encoder that trained methods share. No torch: ``plan`` reads this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gcdis_ray.backbones.config import DOWNLOAD, MODEL, SHA256, WEIGHTS, BackboneConfig, Features
from gcdis_ray.config import Closed
from gcdis_ray.data.crops.augment_config import CropAugmentConfig

Trainable = Literal["none", "all"] | int
CACHED_VIEWS = 4
_RESNET_PX = 32
_START = {"weights", "weights_sha256", "download"}  # what a trained model needs no more
_OF_RESNET = (
    "block", "blocks", "widths", "stem_width", "stem_kernel", "stem_stride", "stem_pool",
    "mask_input",
)  # fmt: skip


class EncoderConfig(Closed):
    """What turns a crop into features, in every method that trains.

    The paper of GCDIS has a ResNet-50 from scratch: ``body: resnet, block: bottleneck, blocks: [3,
    4, 6, 3], widths: [256, 512, 1024, 2048], stem_width: 64, stem_kernel: 7, stem_stride: 2`` at
    224 px.
    """

    body: str = Field(
        "embed",
        min_length=1,
        description="embed: the very backbone and weights of stage embed; resnet: from scratch, of "
        f"the shape below; or {MODEL}",
    )
    weights: str | None = Field(
        None,
        description=f"of a timm model: {WEIGHTS}; null: from scratch, with trainable: all",
    )
    weights_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description=SHA256)
    download: bool = Field(False, description=DOWNLOAD)
    trainable: Literal["none", "all"] | Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None,
        description="what of the body learns: none, so many of its last blocks (stages of a CNN, "
        "blocks of a ViT), or all; null: all of a resnet, none of another body",
    )
    cached_views: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="random views of each crop that go through the frozen part once, before "
        "training draws from them; 0: views are rendered at every step; null: "
        f"{CACHED_VIEWS} where a part is frozen",
    )
    input_px: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="side of the square crops it sees; null: that of stage embed, "
        f"{_RESNET_PX} of a resnet, else what a timm model was trained at (at most 384)",
    )
    use_mask: bool | None = Field(
        None,
        description="pool features over the object only; null: as stage embed, else true; a resnet "
        "pools over the crop",
    )
    features: Features = Field(
        "auto", description="of a timm model, as in stage embed, which has its own for body embed"
    )
    block: Literal["basic", "bottleneck"] = "basic"
    blocks: tuple[int, ...] = Field((1, 1, 1), min_length=1, max_length=6)
    widths: tuple[int, ...] = Field((32, 64, 128), min_length=1, max_length=6)
    stem_width: int = Field(32, ge=4, le=512)
    stem_kernel: Literal[3, 5, 7] = 3
    stem_stride: Literal[1, 2] = 2
    stem_pool: bool = Field(False, description="max-pool after the stem: a quarter of the cost")
    mask_input: bool = Field(
        False,
        description="give a resnet the mask as a fourth channel. The paper shows it to the "
        "attention loss only; as input it spares a small encoder from scratch most of the way to "
        "shape",
    )

    @property
    def learns(self) -> Trainable:
        """What of the body learns."""
        if self.trainable is not None:
            return self.trainable
        return "all" if self.body == "resnet" else "none"

    @property
    def num_cached(self) -> int:
        """Random views that are cached of each crop; 0: they are rendered."""
        if self.cached_views is not None:
            return self.cached_views
        return 0 if self.learns == "all" else CACHED_VIEWS

    @property
    def side_px(self) -> int | None:
        """Side that crops are shown at; None: the body's own."""
        return _RESNET_PX if self.input_px is None and self.body == "resnet" else self.input_px

    @property
    def backbone(self) -> BackboneConfig | None:
        """The timm model, if it is one that is named here."""
        if self.body in ("resnet", "embed"):
            return None
        return BackboneConfig(
            model=self.body,
            weights=self.weights,
            sha256=self.weights_sha256,
            download=self.download,
        )

    @model_validator(mode="after")
    def _fits(self) -> EncoderConfig:
        if len(self.blocks) != len(self.widths):
            raise ValueError("blocks and widths need one entry per stage each")
        if min(self.blocks) < 1 or min(self.widths) < 8 or any(w % 4 for w in self.widths):
            raise ValueError("blocks must be at least 1, widths at least 8 and multiples of 4")
        named = [name for name in sorted(_START) if getattr(self, name)]
        if self.body == "resnet":
            self._resnet(named)
        else:
            shaped = [name for name in _OF_RESNET if self._is_set(name)]
            if shaped:
                raise ValueError(f"{shaped[0]} is of body resnet, and the body is {self.body}")
        if self.body == "embed":
            named += [name for name in ("input_px", "use_mask", "features") if self._is_set(name)]
            if named:
                raise ValueError(
                    f"body embed is all that stage embed is: set {named[0]} there, or name a timm "
                    "model as body"
                )
        if self.learns == "all" and self.cached_views:
            raise ValueError("a body that learns whole has no output to cache: set cached_views: 0")
        return self

    def _resnet(self, named: list[str]) -> None:
        if named:
            raise ValueError(
                f"a resnet starts from scratch, without {named[0]}; one of timm, such as resnet50, "
                "starts at weights"
            )
        if self.learns != "all":
            raise ValueError("a resnet is trained from scratch: set trainable: all")
        if self._is_set("use_mask") or self._is_set("features"):
            raise ValueError("a resnet pools over the crop; mask_input shows it the mask")

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default

    def check_start(self, augment: CropAugmentConfig) -> None:
        """What a training needs to start, and a trained model does not. Raises ValueError."""
        if self.num_cached and augment.background:
            raise ValueError(
                "views are cached crop by crop, and augment.background takes another crop's: set "
                "it to 0, or encoder.cached_views: 0"
            )
        if self.backbone is not None and self.weights is None and self.learns != "all":
            raise ValueError(
                f"encoder: {self.body} is to stay as it is, and has no weights: set weights, or "
                "trainable: all"
            )

    def stored(self) -> dict[str, Any]:
        """Plain data of which a trained model is built again."""
        return self.model_dump(mode="json", exclude=_START)

    def key_fields(self) -> dict[str, Any]:
        """Plain data for an artifact's key: what the weights are, not where they lie."""
        start = self.backbone.key_fields() if self.backbone else None
        return self.stored() | {"start": start}
