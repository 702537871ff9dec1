"""What a detector is made of, as data: readable without torch, and written beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gcdis_ray.backbones.config import (
    DOWNLOAD,
    MODEL,
    NAMED_WEIGHTS,
    SHA256,
    WEIGHTS,
    BackboneConfig,
    LabelUse,
)
from gcdis_ray.backbones.packages import weights_package
from gcdis_ray.config import Closed
from gcdis_ray.errors import ConfigError

_DETECTRON2 = ("resnet18", "resnet34", "resnet50", "resnet101")


class ClassifierConfig(Closed):
    """The only part in which a segmenter differs from a proposer."""

    kind: Literal["softmax", "cosine"] = Field(
        "cosine", description="cosines to one weight vector a class, or a plain linear layer"
    )
    cosine_scale: float = Field(20.0, gt=0, le=1000, description="logits per unit of cosine")


class DetectorConfig(Closed):
    """Mask R-CNN with a feature pyramid. Level ``i`` of the pyramid has stride ``4 * 2**i`` px.

    The defaults suit small images on a CPU; a standard ResNet-50-FPN is ``backbone: resnet50``,
    ``norm: frozen_batch`` with ``weights``, ``fpn_channels: 256``, ``box_channels: 1024``,
    ``mask_channels: 256``, ``mask_convs: 4``, five anchor sizes and ``min_side_px: 800``.
    """

    library: Literal["torchvision", "detectron2"] = Field(
        "torchvision", description="what it is built from; detectron2 is installed separately"
    )
    backbone: str = Field(
        "small",
        description=f"small: residual blocks of our own, from scratch; or {MODEL}. A CNN gives the "
        "maps of its stages, a ViT a simple pyramid over its last one. With library detectron2: "
        "resnet18, 34, 50 or 101",
    )
    width: int = Field(32, ge=8, le=256, multiple_of=8, description="channels of the first stage")
    blocks: tuple[int, ...] = Field(
        (1, 1, 1), min_length=2, max_length=4, description="residual blocks per stage, one a level"
    )
    norm: Literal["group", "frozen_batch"] = Field(
        "group",
        description="in place of batch norm, if the backbone has any; frozen_batch keeps the "
        "statistics of the weights it must be given",
    )
    weights: str | None = Field(None, description=f"of the backbone: {WEIGHTS}")
    weights_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description=SHA256)
    download: bool = Field(False, description=DOWNLOAD)
    backbone_lr: float = Field(
        1.0, gt=0, le=1, description="learning rate of the backbone over that of the rest"
    )
    frozen_stages: int = Field(
        0, ge=0, le=4, description="stem and first stages left as loaded; a "
        "ViT's stage is a quarter of its blocks",
    )  # fmt: skip
    fpn_channels: int = Field(64, ge=16, le=1024, description="channels of every pyramid level")
    anchor_sizes_px: tuple[float, ...] = Field(
        (20.0, 40.0, 80.0), min_length=1, max_length=6, description="side of the anchors per level"
    )
    anchor_ratios: tuple[float, ...] = Field(
        (1.0,), min_length=1, max_length=9, description="height over width of the anchors"
    )
    min_side_px: int = Field(128, ge=32, le=4096, description="shorter image side seen by the net")
    max_side_px: int = Field(192, ge=32, le=8192, description="limit on the longer image side")
    rpn_batch: int = Field(64, ge=2, le=4096, description="anchors sampled per training image")
    rpn_pre_nms: int = Field(200, ge=1, le=100_000, description="boxes per level before NMS")
    rpn_post_nms: int = Field(100, ge=1, le=100_000, description="boxes per image after NMS")
    rpn_nms_iou: float = Field(0.7, gt=0, le=1)
    roi_batch: int = Field(64, ge=2, le=4096, description="boxes sampled per training image")
    roi_positive: float = Field(0.25, gt=0, le=1, description="largest share of object boxes")
    roi_canonical_px: int = Field(
        224, ge=8, le=4096, description="side of the box that is read from the stride-16 level"
    )
    roi_samples: int = Field(
        1, ge=1, le=4, description="points per side read in each cell of a pooled box"
    )
    box_channels: int = Field(128, ge=16, le=4096)
    mask_channels: int = Field(32, ge=8, le=1024)
    mask_convs: int = Field(2, ge=1, le=8)
    mask_roi: int = Field(14, ge=7, le=56, description="RoI cells; masks have twice as many")

    @property
    def num_levels(self) -> int:
        """Pyramid levels: one per stage, four for timm's networks, and perhaps a pooled one above
        these, which there is an anchor size for."""
        if self.backbone == "small":
            return len(self.blocks)
        if self.library == "detectron2":
            return 5
        return 5 if len(self.anchor_sizes_px) == 5 else 4

    def body(self) -> BackboneConfig | None:
        """The network of timm; None for a body of our own or of detectron2's."""
        if self.backbone == "small" or self.library == "detectron2":
            return None
        return BackboneConfig(
            model=self.backbone,
            weights=self.weights,
            sha256=self.weights_sha256,
            download=self.download,
        )

    def located(self) -> Self:
        """The same with an absolute path: workers may run in another folder."""
        if self.weights is None or self.weights in NAMED_WEIGHTS:
            return self
        return self.model_copy(update={"weights": str(Path(self.weights).resolve())})

    def key_fields(self) -> dict[str, Any]:
        """Plain data for an artifact's key: what the weights are, not where they lie."""
        fields = self.model_dump(mode="json", exclude={"weights", "download"})
        body = self.body()
        return fields | ({"weights_sha256": body.key_fields()["sha256"]} if body else {})

    def trained_with_labels(self) -> LabelUse:
        """Whether the backbone's weights have learned names of classes."""
        body = self.body()
        return body.trained_with_labels() if body else "unknown" if self.weights else False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.anchor_sizes_px) != self.num_levels:
            raise ConfigError(
                f"{len(self.anchor_sizes_px)} anchor sizes for {self.num_levels} pyramid levels",
                where="detector.anchor_sizes_px",
                fix=f"give {self.num_levels} sizes, smallest first",
            )
        if self.library == "detectron2" and self.backbone not in _DETECTRON2:
            raise ConfigError(
                f"detectron2 has no backbone {self.backbone!r}",
                where="detector.backbone",
                fix=f"use one of {', '.join(_DETECTRON2)}, or library: torchvision",
            )
        if self.max_side_px < self.min_side_px:
            raise ConfigError(
                f"{self.max_side_px} is below min_side_px {self.min_side_px}",
                where="detector.max_side_px",
                fix="raise it",
            )
        if self.norm == "frozen_batch" and self.weights is None:
            raise ConfigError(
                "frozen batch statistics need trained weights",
                where="detector.norm",
                fix="set detector.weights, or use norm: group",
            )
        if self.weights in NAMED_WEIGHTS and self.body() is None:
            raise ConfigError(
                f"weights: {self.weights} are of timm's networks",
                where="detector.weights",
                fix="name a file, or a backbone of timm with library: torchvision",
            )
        if self.weights == "package":
            weights_package(self.backbone, "detector.weights")
        if self.weights is None and self.weights_sha256 is not None:
            raise ConfigError(
                "a checksum, but no weights",
                where="detector.weights",
                fix="set detector.weights, or remove detector.weights_sha256",
            )
        return self
