"""The same detector built from detectron2's parts, for users who keep their models there.

Backbone, pyramid, region proposals and heads are detectron2's; the weighted losses, the
classifiers and everything around the model are ours, so either library trains under the same
rules. Two things differ from the torchvision detector: areas of crowds count as background, and
proposals can only be scored by the box head.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from gcdis_ray.backbones.imagenet import IMAGENET_MEAN_255, IMAGENET_STD_255
from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_backbone import load_backbone, read_plain
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.instance_heads import (
    BoxDetections,
    CosineBoxClassifier,
    Target,
    instance_losses,
    mask_loss,
)
from gcdis_ray.instances.mask_rcnn_base import MaskRCNN

_STAGES = ("res2", "res3", "res4", "res5")
_LEVELS = ("p2", "p3", "p4", "p5")


class Detectron2MaskRCNN(MaskRCNN):
    """See :class:`~gcdis_ray.instances.mask_rcnn_base.MaskRCNN`."""

    classifier_prefix = "net.roi_heads.box_predictor.cls_score."

    def __init__(
        self, config: DetectorConfig, num_classes: int, classifier: ClassifierConfig | None
    ) -> None:
        super().__init__()
        self.config = config
        self.net = GeneralizedRCNN(
            backbone=_build_backbone(config),
            proposal_generator=_build_rpn(config),
            roi_heads=_build_heads(config, num_classes, classifier),
            pixel_mean=IMAGENET_MEAN_255,
            pixel_std=IMAGENET_STD_255,
            input_format="RGB",
        )

    @property
    def backbone(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.net.backbone

    @property
    def mean(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.net.pixel_mean

    @property
    def std(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.net.pixel_std

    @property
    def mask_head(self) -> nn.Module:
        return self.net.roi_heads.mask_head

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        inputs = [
            {"image": image, "instances": _instances(target, image.shape[-2:])}
            for image, target in zip(batch["images"], batch["targets"], strict=True)
        ]
        with EventStorage():  # detectron2 writes its counts somewhere
            losses = dict(self.net(inputs))
        losses["total"] = torch.stack([loss.float() for loss in losses.values()]).sum()
        return losses

    @torch.inference_mode()
    def detect(
        self,
        images: Sequence[Tensor],
        *,
        min_score: float,
        nms_iou: float,
        max_per_image: int,
        score: str = "box",
    ) -> list[BoxDetections]:
        if score != "box":
            raise ConfigError(
                f"a detector of detectron2 has no score {score!r}",
                where="stages.propose.objectness",
                fix="use objectness: box, or library: torchvision",
            )
        predictor = self.net.roi_heads.box_predictor
        predictor.test_score_thresh = min_score
        predictor.test_nms_thresh = nms_iou
        predictor.test_topk_per_image = max_per_image
        found = self.net.inference([{"image": image} for image in images], do_postprocess=False)
        return [
            BoxDetections(f.pred_boxes.tensor, f.pred_classes, f.scores, f.pred_masks[:, 0])
            for f in found
        ]

    @torch.inference_mode()
    def masks_in_boxes(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        given = []
        for image, mine in zip(images, boxes, strict=True):
            found = Instances((int(image.shape[1]), int(image.shape[2])))
            found.pred_boxes = Boxes(mine.to(self.mean))
            found.pred_classes = torch.zeros(len(mine), dtype=torch.int64, device=self.mean.device)
            given.append(found)
        found = self.net.inference([{"image": image} for image in images], given, False)
        return [f.pred_masks[:, 0] for f in found]


class WeightedOutputLayers(FastRCNNOutputLayers):
    """Classes and boxes with the weight of each region's instance."""

    def losses(self, predictions, proposals):
        logits_RC, deltas_R4 = predictions
        labels = torch.cat([p.gt_classes for p in proposals])
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        matched = torch.cat([_matched(p, "gt_boxes", p.proposal_boxes).tensor for p in proposals])
        ones = [torch.ones(len(p), device=labels.device) for p in proposals]
        weights = [_matched(p, "gt_weights", one) for p, one in zip(proposals, ones, strict=True)]
        labels = (labels + 1) % (self.num_classes + 1)  # background is last there, first here
        return instance_losses(
            logits_RC.roll(1, dims=1),
            deltas_R4,
            labels,
            self.box2box_transform.get_deltas(boxes, matched),
            torch.cat(weights).where(labels > 0, 1.0),
        )


class WeightedMaskHead(MaskRCNNConvUpsampleHead):
    """Masks with the weight of each region's instance; an object without mask weighs nothing."""

    def forward(self, x, instances):
        if not self.training:
            return super().forward(x, instances)
        logits_PMM = self.layers(x)[:, 0]
        wanted, weights, count = [logits_PMM[:0]], [logits_PMM.new_zeros(0)], 0
        for found in instances:
            if len(found):
                side = logits_PMM.shape[-1]
                masks = found.gt_masks.crop_and_resize(found.proposal_boxes.tensor, side)
                wanted.append(masks.float())
                weights.append(found.gt_weights * found.gt_has_mask)
                count += int(found.gt_has_mask.sum())
        return {"roi_mask": mask_loss(logits_PMM, torch.cat(wanted), torch.cat(weights), count)}


def _matched(proposals: Instances, name: str, otherwise):
    """A field of the matched instances; images without instances have none."""
    return proposals.get(name) if proposals.has(name) else otherwise


def _instances(target: Target, size: Sequence[int]) -> Instances:
    height, width = int(size[0]), int(size[1])
    found = Instances((height, width))
    found.gt_boxes = Boxes(target["boxes"])
    found.gt_classes = target["labels"] - 1
    found.gt_weights = target["weights"]
    found.gt_has_mask = target["has_mask"]
    masks = target["masks"][:, None].float()
    if masks.shape[-2:] != (height, width) and len(masks):
        masks = F.interpolate(masks, (height, width), mode="bilinear", antialias=True)
    found.gt_masks = BitMasks(masks[:, 0].reshape(-1, height, width) >= 0.5)
    return found


def _build_backbone(config: DetectorConfig) -> FPN:
    depth = int(config.backbone.removeprefix("resnet"))
    norm = "FrozenBN" if config.norm == "frozen_batch" else "GN"
    options: dict[str, Any] = {} if depth < 50 else {"stride_in_1x1": False}
    body = ResNet(
        BasicStem(3, 64, norm=norm),
        ResNet.make_default_stages(depth, norm=norm, **options),
        out_features=list(_STAGES),
    )
    if config.weights is not None:
        load_backbone(body, _renamed(read_plain(config)), config.weights)
    if config.frozen_stages:
        body.freeze(config.frozen_stages + 1)  # detectron2 counts the stem as the first
    body.lr_share = config.backbone_lr
    return FPN(body, list(_STAGES), config.fpn_channels, top_block=LastLevelMaxPool())


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names of a ResNet's tensors -> detectron2's."""
    renamed = {}
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        name = name if name.startswith("layer") else f"stem.{name}"
        name = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", name)
        name = re.sub(r"bn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[name] = value
    return renamed


def _build_rpn(config: DetectorConfig) -> RPN:
    return RPN(
        in_features=[*_LEVELS, "p6"],
        head=StandardRPNHead(
            in_channels=config.fpn_channels, num_anchors=len(config.anchor_ratios)
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[size] for size in config.anchor_sizes_px],
            aspect_ratios=list(config.anchor_ratios),
            strides=[4, 8, 16, 32, 64],
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=config.rpn_batch,
        positive_fraction=0.5,
        pre_nms_topk=(config.rpn_pre_nms,) * 2,
        post_nms_topk=(config.rpn_post_nms,) * 2,
        nms_thresh=config.rpn_nms_iou,
    )


def _build_heads(
    config: DetectorConfig, num_classes: int, classifier: ClassifierConfig | None
) -> StandardROIHeads:
    channels, width = config.fpn_channels, config.box_channels
    predictor = WeightedOutputLayers(
        ShapeSpec(channels=width),
        box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=True,
    )
    if classifier is not None and classifier.kind == "cosine":
        predictor.cls_score = CosineBoxClassifier(width, num_classes + 1, classifier.cosine_scale)
    return StandardROIHeads(
        num_classes=num_classes,
        batch_size_per_image=config.roi_batch,
        positive_fraction=config.roi_positive,
        proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
        box_in_features=list(_LEVELS),
        box_pooler=_pooler(config, 7),
        box_head=FastRCNNConvFCHead(
            ShapeSpec(channels=channels, height=7, width=7), conv_dims=[], fc_dims=[width] * 2
        ),
        box_predictor=predictor,
        mask_in_features=list(_LEVELS),
        mask_pooler=_pooler(config, config.mask_roi),
        mask_head=WeightedMaskHead(
            ShapeSpec(channels=channels, height=config.mask_roi, width=config.mask_roi),
            num_classes=1,
            conv_dims=[config.mask_channels] * (config.mask_convs + 1),
        ),
    )


def _pooler(config: DetectorConfig, side: int) -> ROIPooler:
    return ROIPooler(
        output_size=side,
        scales=(1 / 4, 1 / 8, 1 / 16, 1 / 32),
        sampling_ratio=config.roi_samples,
        pooler_type="ROIAlignV2",
        canonical_box_size=config.roi_canonical_px,
    )
